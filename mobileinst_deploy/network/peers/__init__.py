"""Other networks that fit the contract: the ones that the paper measures MobileInst against."""
