/* Reads instructions as hexadecimal words, one a line, and prints the kind of each. */
#include <stdio.h>

#include "../counter/kinds.h"

int main(void) {
  unsigned code;
  while (scanf("%x", &code) == 1) puts(kind_names[kind_of(code)]);
  return 0;
}
