//! Handlers of their own for the instructions of the common shape that programs use most: the lane function is inlined, and the fast form
//! makes no calls.

use iced_x86::Code;
use softfloat::{Env, F32, F64, Sse};

use super::lanes::Xmm;
use super::{integer, shift, shuffle};
use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::trap::Exec;
use crate::{fast, op};

/// A lane function as a type, so that handlers can be made with it inlined.
trait Lanes {
    fn apply(a: &Xmm, b: &Xmm) -> Xmm;
}

#[inline(always)]
fn direct<const PATH: u8, L: Lanes>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(false)?;
    cpu.set_xmm(op.r[0], L::apply(&cpu.xmm(op.r[0]), &cpu.xmm(op.r[1])));
    Ok(())
}

#[inline(always)]
fn direct_memory<const PATH: u8, L: Lanes>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(false)?;
    let b = cpu.load_xmm::<PATH, true>(op)?;
    cpu.set_xmm(op.r[0], L::apply(&cpu.xmm(op.r[0]), &b));
    Ok(())
}

#[inline(always)]
fn direct128<const PATH: u8, L: Lanes>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(true)?;
    cpu.set_xmm_clear(op.r[0], L::apply(&cpu.xmm(op.r[1]), &cpu.xmm(op.r[2])));
    Ok(())
}

#[inline(always)]
fn direct128_memory<const PATH: u8, L: Lanes>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(true)?;
    let b = cpu.load_xmm::<PATH, false>(op)?;
    cpu.set_xmm_clear(op.r[0], L::apply(&cpu.xmm(op.r[1]), &b));
    Ok(())
}

#[inline(always)]
fn direct256<const PATH: u8, L: Lanes>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(true)?;
    let (a, b) = (cpu.ymm(op.r[1]), cpu.ymm(op.r[2]));
    cpu.set_ymm(op.r[0], [L::apply(&a[0], &b[0]), L::apply(&a[1], &b[1])]);
    Ok(())
}

#[inline(always)]
fn direct256_memory<const PATH: u8, L: Lanes>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(true)?;
    let b = cpu.load_ymm::<PATH, false>(op)?;
    let a = cpu.ymm(op.r[1]);
    cpu.set_ymm(op.r[0], [L::apply(&a[0], &b[0]), L::apply(&a[1], &b[1])]);
    Ok(())
}

macro_rules! direct {
    ($table:ident: $($function:path: $([$legacy:ident $vex128:ident $vex256:ident])+;)+) => {$({
        struct L;
        impl Lanes for L {
            #[inline(always)]
            fn apply(a: &Xmm, b: &Xmm) -> Xmm {
                $function(a, b)
            }
        }
        $(
            $table.set(Code::$legacy, fast!(direct, L), fast!(direct_memory, L));
            $table.set(Code::$vex128, fast!(direct128, L), fast!(direct128_memory, L));
            $table.set(Code::$vex256, fast!(direct256, L), fast!(direct256_memory, L));
        )+
    })+};
}

/// A function of one vector and the immediate, as a type.
trait LanesImmediate {
    fn apply(a: &Xmm, imm: u8) -> Xmm;
}

/// A legacy shift by the immediate: one register operand.
#[inline(always)]
fn immediate_in_place<const PATH: u8, L: LanesImmediate>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(false)?;
    cpu.set_xmm(op.r[0], L::apply(&cpu.xmm(op.r[0]), op.imm as u8));
    Ok(())
}

/// A destination and a source register; `V`: VEX-encoded.
#[inline(always)]
fn immediate<const PATH: u8, const V: bool, L: LanesImmediate>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(V)?;
    cpu.set_xmm_as(V, op.r[0], L::apply(&cpu.xmm(op.r[1]), op.imm as u8));
    Ok(())
}

#[inline(always)]
fn immediate_memory<const PATH: u8, const V: bool, L: LanesImmediate>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(V)?;
    let source = if V { cpu.load_xmm::<PATH, false>(op)? } else { cpu.load_xmm::<PATH, true>(op)? };
    cpu.set_xmm_as(V, op.r[0], L::apply(&source, op.imm as u8));
    Ok(())
}

#[inline(always)]
fn immediate256<const PATH: u8, L: LanesImmediate>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(true)?;
    let source = cpu.ymm(op.r[1]);
    let imm = op.imm as u8;
    cpu.set_ymm(op.r[0], [L::apply(&source[0], imm), L::apply(&source[1], imm)]);
    Ok(())
}

/// Arithmetic on the lowest lane, as a type.
trait Scalar {
    fn apply<T: Sse>(a: T, b: T, env: &mut Env) -> T;
}

/// ADDSS, ADDSD and the like: `N` bytes a lane, `V`: VEX-encoded.
#[inline(never)]
fn scalar<const N: usize, const V: bool, const MEMORY: bool, S: Scalar>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready(V)?;
    let (a, b) = if V { (op.r[1], op.r[2]) } else { (op.r[0], op.r[1]) };
    let b = if MEMORY { cpu.load_operand::<N>(op)? } else { cpu.ymm[(b & 15) as usize][0] };
    let [low, high] = [0, 1].map(|i| cpu.ymm[(a & 15) as usize][i]);
    let mut env = Env::from_mxcsr(cpu.mxcsr);
    let low = if N == 4 {
        let lane = S::apply(F32(low as u32), F32(b as u32), &mut env).0;
        low & !0xffff_ffff | u64::from(lane)
    } else {
        S::apply(F64(low), F64(b), &mut env).0
    };
    cpu.settle(&env)?;
    let register = &mut cpu.ymm[(op.r[0] & 15) as usize];
    if V {
        *register = [low, high, 0, 0];
    } else {
        register[0] = low;
    }
    Ok(())
}

macro_rules! shifts {
    ($table:ident: $($function:path: $legacy:ident $vex128:ident $vex256:ident;)+) => {$({
        struct L;
        impl LanesImmediate for L {
            #[inline(always)]
            fn apply(a: &Xmm, imm: u8) -> Xmm {
                $function(a, u64::from(imm))
            }
        }
        $table.one(Code::$legacy, fast!(immediate_in_place, L));
        $table.one(Code::$vex128, fast!(immediate, true, L));
        $table.one(Code::$vex256, fast!(immediate256, L));
    })+};
}

macro_rules! scalars {
    ($table:ident: $($method:ident: $ss:ident $vex_ss:ident $sd:ident $vex_sd:ident;)+) => {$({
        struct S;
        impl Scalar for S {
            #[inline(always)]
            fn apply<T: Sse>(a: T, b: T, env: &mut Env) -> T {
                a.$method(b, env)
            }
        }
        $table.set(Code::$ss, op!(scalar::<4, false, false, S>), op!(scalar::<4, false, true, S>));
        $table.set(Code::$vex_ss, op!(scalar::<4, true, false, S>), op!(scalar::<4, true, true, S>));
        $table.set(Code::$sd, op!(scalar::<8, false, false, S>), op!(scalar::<8, false, true, S>));
        $table.set(Code::$vex_sd, op!(scalar::<8, true, false, S>), op!(scalar::<8, true, true, S>));
    })+};
}

/// Registers these instructions; to be called before [`super::vector::register`].
pub(super) fn register(table: &mut Table) {
    direct! { table:
        integer::and:
            [Pand_xmm_xmmm128 VEX_Vpand_xmm_xmm_xmmm128 VEX_Vpand_ymm_ymm_ymmm256]
            [Andps_xmm_xmmm128 VEX_Vandps_xmm_xmm_xmmm128 VEX_Vandps_ymm_ymm_ymmm256]
            [Andpd_xmm_xmmm128 VEX_Vandpd_xmm_xmm_xmmm128 VEX_Vandpd_ymm_ymm_ymmm256];
        integer::and_not:
            [Pandn_xmm_xmmm128 VEX_Vpandn_xmm_xmm_xmmm128 VEX_Vpandn_ymm_ymm_ymmm256]
            [Andnps_xmm_xmmm128 VEX_Vandnps_xmm_xmm_xmmm128 VEX_Vandnps_ymm_ymm_ymmm256]
            [Andnpd_xmm_xmmm128 VEX_Vandnpd_xmm_xmm_xmmm128 VEX_Vandnpd_ymm_ymm_ymmm256];
        integer::or:
            [Por_xmm_xmmm128 VEX_Vpor_xmm_xmm_xmmm128 VEX_Vpor_ymm_ymm_ymmm256]
            [Orps_xmm_xmmm128 VEX_Vorps_xmm_xmm_xmmm128 VEX_Vorps_ymm_ymm_ymmm256]
            [Orpd_xmm_xmmm128 VEX_Vorpd_xmm_xmm_xmmm128 VEX_Vorpd_ymm_ymm_ymmm256];
        integer::xor:
            [Pxor_xmm_xmmm128 VEX_Vpxor_xmm_xmm_xmmm128 VEX_Vpxor_ymm_ymm_ymmm256]
            [Xorps_xmm_xmmm128 VEX_Vxorps_xmm_xmm_xmmm128 VEX_Vxorps_ymm_ymm_ymmm256]
            [Xorpd_xmm_xmmm128 VEX_Vxorpd_xmm_xmm_xmmm128 VEX_Vxorpd_ymm_ymm_ymmm256];
        integer::equal8: [Pcmpeqb_xmm_xmmm128 VEX_Vpcmpeqb_xmm_xmm_xmmm128 VEX_Vpcmpeqb_ymm_ymm_ymmm256];
        integer::equal16: [Pcmpeqw_xmm_xmmm128 VEX_Vpcmpeqw_xmm_xmm_xmmm128 VEX_Vpcmpeqw_ymm_ymm_ymmm256];
        integer::equal32: [Pcmpeqd_xmm_xmmm128 VEX_Vpcmpeqd_xmm_xmm_xmmm128 VEX_Vpcmpeqd_ymm_ymm_ymmm256];
        integer::greater8: [Pcmpgtb_xmm_xmmm128 VEX_Vpcmpgtb_xmm_xmm_xmmm128 VEX_Vpcmpgtb_ymm_ymm_ymmm256];
        integer::greater16: [Pcmpgtw_xmm_xmmm128 VEX_Vpcmpgtw_xmm_xmm_xmmm128 VEX_Vpcmpgtw_ymm_ymm_ymmm256];
        integer::greater32: [Pcmpgtd_xmm_xmmm128 VEX_Vpcmpgtd_xmm_xmm_xmmm128 VEX_Vpcmpgtd_ymm_ymm_ymmm256];
        integer::min_u8: [Pminub_xmm_xmmm128 VEX_Vpminub_xmm_xmm_xmmm128 VEX_Vpminub_ymm_ymm_ymmm256];
        integer::max_u8: [Pmaxub_xmm_xmmm128 VEX_Vpmaxub_xmm_xmm_xmmm128 VEX_Vpmaxub_ymm_ymm_ymmm256];
        integer::add8: [Paddb_xmm_xmmm128 VEX_Vpaddb_xmm_xmm_xmmm128 VEX_Vpaddb_ymm_ymm_ymmm256];
        integer::add16: [Paddw_xmm_xmmm128 VEX_Vpaddw_xmm_xmm_xmmm128 VEX_Vpaddw_ymm_ymm_ymmm256];
        integer::add32: [Paddd_xmm_xmmm128 VEX_Vpaddd_xmm_xmm_xmmm128 VEX_Vpaddd_ymm_ymm_ymmm256];
        integer::add64: [Paddq_xmm_xmmm128 VEX_Vpaddq_xmm_xmm_xmmm128 VEX_Vpaddq_ymm_ymm_ymmm256];
        integer::sub8: [Psubb_xmm_xmmm128 VEX_Vpsubb_xmm_xmm_xmmm128 VEX_Vpsubb_ymm_ymm_ymmm256];
        integer::sub16: [Psubw_xmm_xmmm128 VEX_Vpsubw_xmm_xmm_xmmm128 VEX_Vpsubw_ymm_ymm_ymmm256];
        integer::sub32: [Psubd_xmm_xmmm128 VEX_Vpsubd_xmm_xmm_xmmm128 VEX_Vpsubd_ymm_ymm_ymmm256];
        integer::sub64: [Psubq_xmm_xmmm128 VEX_Vpsubq_xmm_xmm_xmmm128 VEX_Vpsubq_ymm_ymm_ymmm256];
        integer::sub_saturate_u8: [Psubusb_xmm_xmmm128 VEX_Vpsubusb_xmm_xmm_xmmm128 VEX_Vpsubusb_ymm_ymm_ymmm256];
        integer::multiply_low16: [Pmullw_xmm_xmmm128 VEX_Vpmullw_xmm_xmm_xmmm128 VEX_Vpmullw_ymm_ymm_ymmm256];
        integer::multiply_u32: [Pmuludq_xmm_xmmm128 VEX_Vpmuludq_xmm_xmm_xmmm128 VEX_Vpmuludq_ymm_ymm_ymmm256];
        integer::multiply_add16: [Pmaddwd_xmm_xmmm128 VEX_Vpmaddwd_xmm_xmm_xmmm128 VEX_Vpmaddwd_ymm_ymm_ymmm256];
        shuffle::bytes: [Pshufb_xmm_xmmm128 VEX_Vpshufb_xmm_xmm_xmmm128 VEX_Vpshufb_ymm_ymm_ymmm256];
        shuffle::unpack_low8: [Punpcklbw_xmm_xmmm128 VEX_Vpunpcklbw_xmm_xmm_xmmm128 VEX_Vpunpcklbw_ymm_ymm_ymmm256];
        shuffle::unpack_low16: [Punpcklwd_xmm_xmmm128 VEX_Vpunpcklwd_xmm_xmm_xmmm128 VEX_Vpunpcklwd_ymm_ymm_ymmm256];
        shuffle::unpack_low32: [Punpckldq_xmm_xmmm128 VEX_Vpunpckldq_xmm_xmm_xmmm128 VEX_Vpunpckldq_ymm_ymm_ymmm256] [Unpcklps_xmm_xmmm128 VEX_Vunpcklps_xmm_xmm_xmmm128 VEX_Vunpcklps_ymm_ymm_ymmm256];
        shuffle::unpack_low64: [Punpcklqdq_xmm_xmmm128 VEX_Vpunpcklqdq_xmm_xmm_xmmm128 VEX_Vpunpcklqdq_ymm_ymm_ymmm256] [Unpcklpd_xmm_xmmm128 VEX_Vunpcklpd_xmm_xmm_xmmm128 VEX_Vunpcklpd_ymm_ymm_ymmm256];
        shuffle::unpack_high8: [Punpckhbw_xmm_xmmm128 VEX_Vpunpckhbw_xmm_xmm_xmmm128 VEX_Vpunpckhbw_ymm_ymm_ymmm256];
        shuffle::unpack_high16: [Punpckhwd_xmm_xmmm128 VEX_Vpunpckhwd_xmm_xmm_xmmm128 VEX_Vpunpckhwd_ymm_ymm_ymmm256];
        shuffle::unpack_high32: [Punpckhdq_xmm_xmmm128 VEX_Vpunpckhdq_xmm_xmm_xmmm128 VEX_Vpunpckhdq_ymm_ymm_ymmm256];
        shuffle::unpack_high64: [Punpckhqdq_xmm_xmmm128 VEX_Vpunpckhqdq_xmm_xmm_xmmm128 VEX_Vpunpckhqdq_ymm_ymm_ymmm256];
        shuffle::pack_i16_u8: [Packuswb_xmm_xmmm128 VEX_Vpackuswb_xmm_xmm_xmmm128 VEX_Vpackuswb_ymm_ymm_ymmm256];
        shuffle::pack_i32_i16: [Packssdw_xmm_xmmm128 VEX_Vpackssdw_xmm_xmm_xmmm128 VEX_Vpackssdw_ymm_ymm_ymmm256];
    }
    shifts! { table:
        shift::left_bytes: Pslldq_xmm_imm8 VEX_Vpslldq_xmm_xmm_imm8 VEX_Vpslldq_ymm_ymm_imm8;
        shift::right_bytes: Psrldq_xmm_imm8 VEX_Vpsrldq_xmm_xmm_imm8 VEX_Vpsrldq_ymm_ymm_imm8;
        shift::left64: Psllq_xmm_imm8 VEX_Vpsllq_xmm_xmm_imm8 VEX_Vpsllq_ymm_ymm_imm8;
        shift::right64: Psrlq_xmm_imm8 VEX_Vpsrlq_xmm_xmm_imm8 VEX_Vpsrlq_ymm_ymm_imm8;
        shift::left32: Pslld_xmm_imm8 VEX_Vpslld_xmm_xmm_imm8 VEX_Vpslld_ymm_ymm_imm8;
        shift::right32: Psrld_xmm_imm8 VEX_Vpsrld_xmm_xmm_imm8 VEX_Vpsrld_ymm_ymm_imm8;
    }
    {
        struct L;
        impl LanesImmediate for L {
            #[inline(always)]
            fn apply(a: &Xmm, imm: u8) -> Xmm {
                shuffle::dwords(a, imm)
            }
        }
        table.set(Code::Pshufd_xmm_xmmm128_imm8, fast!(immediate, false, L), fast!(immediate_memory, false, L));
        table.set(Code::VEX_Vpshufd_xmm_xmmm128_imm8, fast!(immediate, true, L), fast!(immediate_memory, true, L));
    }
    scalars! { table:
        add: Addss_xmm_xmmm32 VEX_Vaddss_xmm_xmm_xmmm32 Addsd_xmm_xmmm64 VEX_Vaddsd_xmm_xmm_xmmm64;
        sub: Subss_xmm_xmmm32 VEX_Vsubss_xmm_xmm_xmmm32 Subsd_xmm_xmmm64 VEX_Vsubsd_xmm_xmm_xmmm64;
        mul: Mulss_xmm_xmmm32 VEX_Vmulss_xmm_xmm_xmmm32 Mulsd_xmm_xmmm64 VEX_Vmulsd_xmm_xmm_xmmm64;
        div: Divss_xmm_xmmm32 VEX_Vdivss_xmm_xmm_xmmm32 Divsd_xmm_xmmm64 VEX_Vdivsd_xmm_xmm_xmmm64;
    }
}
