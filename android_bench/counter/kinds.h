// What an aarch64 instruction is good for, as far as a bound on its cost needs it. From the Arm
// Architecture Reference Manual (DDI 0487), "Top-level encodings for A64".
#pragma once

#include <stdint.h>

// Multiply-accumulates of floating point by the width of their vectors, those of half precision
// apart since they do twice the work; loads, stores and branches; everything else.
enum kind { FMLA_128, FMLA_64, FMLA_SCALAR, FMLA_HALF_128, FMLA_HALF_64, LOAD, STORE, BRANCH, OTHER, KINDS };

static const char* const kind_names[KINDS] = {
    "fmla_128", "fmla_64", "fmla_scalar", "fmla_half_128", "fmla_half_64",
    "load",     "store",   "branch",      "other"};

static int is(uint32_t code, uint32_t mask, uint32_t value) { return (code & mask) == value; }

static enum kind fmla_of(uint32_t code) {
  const int wide = (code >> 30) & 1;
  // fmla and fmls: of three vectors, by element.
  if (is(code, 0xbf20fc00, 0x0e20cc00) || is(code, 0xbf80b400, 0x0f801000))
    return wide ? FMLA_128 : FMLA_64;
  if (is(code, 0xbf60fc00, 0x0e400c00) || is(code, 0xbfc0b400, 0x0f001000))
    return wide ? FMLA_HALF_128 : FMLA_HALF_64;
  // fmadd, fmsub, fnmadd, fnmsub; fmla and fmls of scalars by element.
  if (is(code, 0xff000000, 0x1f000000) || is(code, 0xff80b400, 0x5f801000) ||
      is(code, 0xffc0b400, 0x5f001000))
    return FMLA_SCALAR;
  return OTHER;
}

static enum kind memory_of(uint32_t code) {
  const int loads = (code >> 22) & 1;
  if (is(code, 0x3b000000, 0x18000000)) return is(code, 0xff000000, 0xd8000000) ? OTHER : LOAD;
  if (is(code, 0x3a000000, 0x38000000)) {  // one register; opc tells, and prefetches are neither
    const uint32_t opc = (code >> 22) & 3, vector = (code >> 26) & 1, size = code >> 30;
    if (is(code, 0x3b200c00, 0x38200000)) return LOAD;  // an atomic operation loads and stores
    if (!vector && size == 3 && opc == 2) return OTHER;
    return (vector ? loads : opc != 0) ? LOAD : STORE;
  }
  if (is(code, 0x3a000000, 0x28000000) || is(code, 0xbe000000, 0x0c000000) ||
      is(code, 0x3f000000, 0x08000000))
    return loads ? LOAD : STORE;
  return OTHER;
}

static enum kind kind_of(uint32_t code) {
  if (is(code, 0x7c000000, 0x14000000) || is(code, 0xff000000, 0x54000000) ||
      is(code, 0x7c000000, 0x34000000) || is(code, 0xfe000000, 0xd6000000))
    return BRANCH;
  return is(code, 0x0a000000, 0x08000000) ? memory_of(code) : fmla_of(code);
}
