//! Fused multiply-add on lanes (SDM volume 1, 14.5; volume 2, VFMADD132PS and its relatives).
//!
//! Each function computes x * y + z, with signs as its name says; which operands are x, y and z is the 132, 213 or 231 of the
//! mnemonic and no concern here. Scalar functions give the lane in the lowest place and zeros above.

use softfloat::{Env, F32, F64, Sse};

use super::lanes::Xmm;

/// A function of multiplicand, multiplier and addend.
pub type Fused = fn(&Xmm, &Xmm, &Xmm, &mut Env) -> Xmm;

#[inline(always)]
fn madd<T: Sse>(x: T, y: T, z: T, env: &mut Env) -> T {
    x.fma(y, z, env)
}
#[inline(always)]
fn msub<T: Sse>(x: T, y: T, z: T, env: &mut Env) -> T {
    x.fma(y, z.negated(), env)
}
#[inline(always)]
fn nmadd<T: Sse>(x: T, y: T, z: T, env: &mut Env) -> T {
    x.negated().fma(y, z, env)
}
#[inline(always)]
fn nmsub<T: Sse>(x: T, y: T, z: T, env: &mut Env) -> T {
    x.negated().fma(y, z.negated(), env)
}

/// Defines the packed functions: even lanes by the first operation, odd lanes by the second.
macro_rules! packed {
    ($($(#[$doc:meta])* $ps:ident $pd:ident: $even:ident, $odd:ident;)+) => {$(
        $(#[$doc])*
        #[doc = " Single precision."]
        pub fn $ps(x: &Xmm, y: &Xmm, z: &Xmm, env: &mut Env) -> Xmm {
            let (x, y, z) = (x.f32s(), y.f32s(), z.f32s());
            Xmm::from_f32s(core::array::from_fn(|i| {
                if i % 2 == 0 { $even(x[i], y[i], z[i], env) } else { $odd(x[i], y[i], z[i], env) }
            }))
        }

        $(#[$doc])*
        #[doc = " Double precision."]
        pub fn $pd(x: &Xmm, y: &Xmm, z: &Xmm, env: &mut Env) -> Xmm {
            let (x, y, z) = (x.f64s(), y.f64s(), z.f64s());
            Xmm::from_f64s([$even(x[0], y[0], z[0], env), $odd(x[1], y[1], z[1], env)])
        }
    )+};
}

packed! {
    /// x * y + z.
    madd_ps madd_pd: madd, madd;
    /// x * y - z.
    msub_ps msub_pd: msub, msub;
    /// -(x * y) + z.
    nmadd_ps nmadd_pd: nmadd, nmadd;
    /// -(x * y) - z.
    nmsub_ps nmsub_pd: nmsub, nmsub;
    /// x * y - z in even lanes, x * y + z in odd ones (VFMADDSUB).
    maddsub_ps maddsub_pd: msub, madd;
    /// x * y + z in even lanes, x * y - z in odd ones (VFMSUBADD).
    msubadd_ps msubadd_pd: madd, msub;
}

macro_rules! scalar {
    ($($(#[$doc:meta])* $ss:ident $sd:ident: $operation:ident;)+) => {$(
        $(#[$doc])*
        #[doc = " Single precision."]
        pub fn $ss(x: &Xmm, y: &Xmm, z: &Xmm, env: &mut Env) -> Xmm {
            let lane = $operation(F32(x.low32()), F32(y.low32()), F32(z.low32()), env);
            Xmm::from_low(u64::from(lane.0))
        }

        $(#[$doc])*
        #[doc = " Double precision."]
        pub fn $sd(x: &Xmm, y: &Xmm, z: &Xmm, env: &mut Env) -> Xmm {
            Xmm::from_low($operation(F64(x.low()), F64(y.low()), F64(z.low()), env).0)
        }
    )+};
}

scalar! {
    /// x * y + z.
    madd_ss madd_sd: madd;
    /// x * y - z.
    msub_ss msub_sd: msub;
    /// -(x * y) + z.
    nmadd_ss nmadd_sd: nmadd;
    /// -(x * y) - z.
    nmsub_ss nmsub_sd: nmsub;
}
