//! The facts of the manuals as types. No behaviour.
#![no_std]
#![forbid(unsafe_code)]
