"""What everything else speaks of: configuration, contract, records, masks, tracking."""
