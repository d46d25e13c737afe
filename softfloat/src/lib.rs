//! IEEE 754 and x87 arithmetic with the flags, rounding and NaN rules of x86.
//!
//! Values are bit patterns in newtypes: [`F16`], [`F32`], [`F64`] and [`F80`] (the x87 double extended format).
//! Every operation takes an [`Env`]: rounding, DAZ/FTZ, masks and x87 precision control go in, exception flags come out.
//!
//! * [`Sse`] is the arithmetic of SSE, AVX and FMA on [`F32`] and [`F64`] (SDM Vol. 1, chapters 11 and 14).
//! * [`Operand`] and [`F80`]'s own methods are the arithmetic of the x87 (SDM Vol. 1, chapter 8).
//!
//! An operation always returns the *masked* response (or, for x87 overflow and underflow with the exception unmasked, the
//! bias-adjusted one) and accumulates flags in [`Env::flags`]; [`Env::finish`] then says which flags become visible and whether
//! an unmasked exception is pending, in which case SSE writes no result at all.
//!
//! ```
//! use softfloat::{Env, F64, Sse};
//! let mut env = Env::from_mxcsr(0x1f80);
//! let third = F64(1.0f64.to_bits()).div(F64(3.0f64.to_bits()), &mut env);
//! assert_eq!(f64::from_bits(third.0), 1.0 / 3.0);
//! assert_eq!(env.finish(), (softfloat::PE, false));
//! ```
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

mod arith;
mod convert;
mod env;
mod extended;
mod fast;
mod formats;
mod num;
mod sse;
mod transcendental;
mod wide;

pub use env::{DE, Env, IE, OE, PE, Precision, Rounding, UE, ZE};
pub use extended::{Bcd, Quotient, RemainderKind};
pub use formats::{F16, F32, F64, F80, Operand};
pub use num::Class;
pub use sse::{Relation, Sse};
