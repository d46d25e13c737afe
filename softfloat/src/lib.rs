//! IEEE 754 and x87 arithmetic with the flags, rounding and NaN rules of x86.
#![no_std]
#![forbid(unsafe_code)]
