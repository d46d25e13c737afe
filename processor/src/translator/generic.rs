//! The instructions that are emitted as they are, with other registers and addresses: most of them.
//!
//! What an operand is and where it is encoded comes from the decoder's own tables ([`iced_x86::OpCodeInfo`]), so there is no list of encodings here,
//! only a list of what must not be done this way.

use super::Width;
use super::block::{Builder, Done, Site};
use super::emit::{Mask, Opcode, R13, R14, R15, RAX, RCX, Reg, Rm};
use super::memory::{Access, PROBED, addressable, home, host_register};
use super::raw::Raw;
use super::state::State;
use super::undefined::{Undefined, undefined};
use super::vector;
use core::mem::offset_of;
use iced_x86::{
    Code, Decoder, DecoderOptions, EncodingKind, Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic,
    OpAccess, OpCodeOperandKind, OpKind, Register,
};
use std::sync::LazyLock;

/// Where a general register stands in the encoding.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Reg,
    Rm,
    Opcode,
    V,
}

/// A general register operand.
#[derive(Clone, Copy)]
struct Gpr {
    field: Field,
    guest: u8,
    size: usize,
    /// AH, CH, DH or BH.
    high: bool,
    read: bool,
    write: bool,
    /// Memory may stand in its place.
    or_memory: bool,
}

/// What is to be done for an instruction.
struct Plan {
    gprs: [Option<Gpr>; 4],
    access: Option<Access>,
    /// Has ModRM.
    modrm: bool,
    /// The count is in CL.
    count: bool,
    vector: bool,
}

fn reads_and_writes(access: OpAccess) -> Option<(bool, bool)> {
    Some(match access {
        OpAccess::Read | OpAccess::CondRead => (true, false),
        OpAccess::Write => (false, true),
        OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
        // XOR of a register with itself reads nothing.
        OpAccess::None => (false, false),
        OpAccess::NoMemAccess => return None,
    })
}

/// Most operands of an instruction.
const OPERANDS: usize = 5;

/// The kinds of the operands of each code, close together: the decoder's table has much else, and is used by many translations only.
static KINDS: LazyLock<Vec<[OpCodeOperandKind; OPERANDS]>> = LazyLock::new(|| {
    let kind = |code: Code, operand: usize| code.op_code().op_kinds().get(operand).copied().unwrap_or_default();
    Code::values().map(|code| std::array::from_fn(|operand| kind(code, operand))).collect()
});

fn plan(i: &Instruction, factory: &mut InstructionInfoFactory) -> Option<Plan> {
    use OpCodeOperandKind as K;
    let mut plan = Plan { gprs: [None; 4], access: None, modrm: false, count: false, vector: false };
    let options = InstructionInfoOptions::NO_MEMORY_USAGE | InstructionInfoOptions::NO_REGISTER_USAGE;
    let info = factory.info_options(i, options);
    let kinds = KINDS[i.code() as usize];
    for operand in 0..i.op_count() {
        let kind = kinds[operand as usize];
        let memory = i.op_kind(operand) == OpKind::Memory;
        let field = match kind {
            K::r8_reg | K::r16_reg | K::r32_reg | K::r64_reg => Field::Reg,
            K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::r16_rm
            | K::r32_rm
            | K::r64_rm
            | K::mem
            | K::xmm_or_mem
            | K::ymm_or_mem
            | K::xmm_rm
            | K::ymm_rm => Field::Rm,
            K::xmm_reg | K::ymm_reg => Field::Reg,
            K::r8_opcode | K::r16_opcode | K::r32_opcode | K::r64_opcode => Field::Opcode,
            K::r32_vvvv | K::r64_vvvv | K::xmm_vvvv | K::ymm_vvvv => Field::V,
            K::xmm_is4 | K::ymm_is4 => {
                plan.vector = true;
                continue;
            }
            K::cl => {
                plan.count = true;
                continue;
            }
            K::imm8
            | K::imm8_const_1
            | K::imm8sex16
            | K::imm8sex32
            | K::imm8sex64
            | K::imm16
            | K::imm32
            | K::imm32sex64
            | K::imm64
            | K::al
            | K::ax
            | K::eax
            | K::rax => continue,
            _ => return None,
        };
        plan.modrm |= matches!(field, Field::Reg | Field::Rm);
        let (read, write) = reads_and_writes(info.op_access(operand))?;
        if memory {
            let size = i.memory_size().size();
            if !(read || write) || !addressable(i) || !matches!(size, 1 | 2 | 4 | 8 | 16 | 32) {
                return None;
            }
            plan.access = Some(Access { size: size as u32, write, aligned: aligned(i, size) });
            continue;
        }
        let register = i.op_register(operand);
        if register.is_xmm() || register.is_ymm() {
            plan.vector = true;
        } else if register.is_gpr() {
            let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
            plan.gprs[operand as usize] = Some(Gpr {
                field,
                guest: register.full_register().number() as u8,
                size: register.size(),
                high,
                // A narrow result leaves the rest as it is.
                read: read || register.size() < 4,
                write,
                or_memory: matches!(kind, K::r8_or_mem | K::r16_or_mem | K::r32_or_mem | K::r64_or_mem),
            });
        } else {
            return None;
        }
    }
    Some(plan)
}

/// Bytes of the first operand.
pub(super) fn operand_size(i: &Instruction) -> usize {
    match i.op_kind(0) {
        OpKind::Memory => i.memory_size().size(),
        OpKind::Register => i.op0_register().size(),
        _ => 0,
    }
}

/// Whether the operand in memory must be aligned to its size (SDM Vol 2A, 2.4: exception types 1 and 4).
pub(super) fn aligned(i: &Instruction, size: usize) -> bool {
    use Mnemonic::*;
    if size < 16 {
        return false;
    }
    match i.mnemonic() {
        Movups | Movupd | Movdqu | Lddqu | Pcmpestri | Pcmpestri64 | Pcmpestrm | Pcmpestrm64 | Pcmpistri
        | Pcmpistrm => false,
        Vmovaps | Vmovapd | Vmovdqa | Vmovntps | Vmovntpd | Vmovntdq | Vmovntdqa => true,
        _ => i.code().encoding() == EncodingKind::Legacy,
    }
}

impl Builder<'_> {
    /// Emits the instruction again.
    pub(super) fn generic(&mut self, i: &Instruction, bytes: &[u8], site: Site) -> Done {
        let integer = integer(i.mnemonic());
        if !integer && !vector::kept(i.mnemonic()) {
            return Done::No;
        }
        // In 32-bit code they leave the upper eight registers alone.
        if vector::without_operands(i.mnemonic()) && self.width() == Width::Flat32 {
            return Done::No;
        }
        let undefined = undefined(i, self.live, self.host);
        if undefined == Undefined::Interpreter {
            return Done::No;
        }
        let Some(plan) = plan(i, &mut self.scratch.factory) else { return Done::No };
        if !integer && !plan.vector && !vector::without_operands(i.mnemonic()) {
            return Done::No;
        }
        let Some(raw) = Raw::parse(bytes, plan.modrm) else { return Done::No };
        let high = plan.gprs.iter().flatten().any(|gpr| gpr.high);
        if high || plan.count {
            self.held = None;
        }
        let direct = if integer { self.direct(i, &plan, &raw) } else { None };
        let held = self.held.filter(|(guest, _)| {
            integer && plan.access.is_none() && plan.gprs.iter().flatten().any(|gpr| gpr.guest == *guest)
        });
        let Some(hosts) = assign(&plan, direct.map(|direct| direct.operand), held) else { return Done::No };
        if !integer {
            self.guard(raw.vex.is_some(), site);
        }
        let mut memory = None;
        if let Some(access) = plan.access {
            let operand = self.operand(i, access, site);
            memory = Some(operand);
            if high {
                self.code.lea(RCX, operand);
                memory = Some(Rm::Base(RCX, 0));
            } else if operand == PROBED && hosts.contains(&Some(R15)) {
                self.code.lea(R14, PROBED);
                memory = Some(Rm::Base(R14, 0));
            }
            self.held = None;
        }
        let opcode;
        let mut raw = raw;
        if let Some(Direct { operand, swap }) = direct {
            memory = plan.gprs[operand].map(|gpr| home(gpr.guest));
            if let Some(swapped) = swap {
                opcode = [swapped];
                raw = raw.with(&opcode, raw.immediate);
            }
        }
        for (gpr, host) in plan.gprs.iter().zip(hosts) {
            if let (Some(gpr), Some(host)) = (gpr, host)
                && host_register(gpr.guest) != Some(host)
                && gpr.read
                && !gpr.high
                && self.held(gpr.guest) != Some(host)
            {
                let from = host_register(gpr.guest).map_or(home(gpr.guest), Rm::Reg);
                self.code.load(host, from);
            }
        }
        if matches!(undefined, Undefined::ByCount { .. }) {
            let wide = operand_size(i) == 8;
            self.code.extract(RCX, R13, Mask::low(offset_of!(State, bit_numbers) + 8 * usize::from(wide)));
            if let (Some(host), 4) = (hosts[0], operand_size(i)) {
                // The upper half is lost even if the count is zero.
                self.code.op32(0x8b, host, Rm::Reg(host));
            }
        } else if plan.count {
            self.code.load32(RCX, Rm::Reg(R13));
        }
        let start = self.code.here();
        let swap = direct.is_some_and(|direct| direct.swap.is_some());
        let mut again = true;
        let mut emit = |builder: &mut Self, raw: &Raw<'_>| {
            let start = builder.code.here();
            builder.emit_again(raw, &plan, &hosts, memory, swap);
            again &= builder.is_again(start, i);
        };
        match undefined {
            Undefined::ByNumber(number) => self.shift_twice(number, &raw, emit),
            Undefined::ByCount { twice, clear_af } => self.shift_by_count(twice, clear_af, &raw, emit),
            _ => emit(self, &raw),
        }
        if !again {
            debug_assert!(false, "{:?} emitted as something else", i.code());
            self.code.back_to(start);
            return Done::No;
        }
        if vector::index_in_rcx(i.mnemonic()) {
            self.code.load32(R13, Rm::Reg(RCX));
        }
        for (gpr, host) in plan.gprs.iter().zip(hosts) {
            if let (Some(gpr), Some(host)) = (gpr, host)
                && gpr.write
                && host_register(gpr.guest).is_none()
            {
                self.code.store(home(gpr.guest), host);
            }
        }
        self.hold(&plan, &hosts, direct, undefined);
        match undefined {
            // With one operand the low half is in RAX.
            Undefined::Product(size) => {
                self.product_flags(if i.op_count() == 1 { RAX } else { hosts[0].unwrap_or(RAX) }, size);
            }
            Undefined::Scan => self.scan_flags(hosts[0].unwrap_or(RAX)),
            Undefined::Cleared(kept) => self.clear_flags(kept),
            _ => {}
        }
        Done::Yes
    }

    /// What was emitted from `start` on is one instruction of this kind: whatever the guest's bytes are, nothing else gets executed.
    fn is_again(&self, start: u64, i: &Instruction) -> bool {
        let mut decoder = Decoder::new(64, self.code.from(start), DecoderOptions::NONE);
        let emitted = decoder.decode();
        emitted.mnemonic() == i.mnemonic() && operand_size(&emitted) == operand_size(i) && !decoder.can_decode()
    }

    /// The operand that is emitted as the memory where the guest's register is.
    fn direct(&self, i: &Instruction, plan: &Plan, raw: &Raw<'_>) -> Option<Direct> {
        use Mnemonic::{Bt, Btc, Btr, Bts, Cmpxchg, Test, Xadd, Xchg};
        if plan.access.is_some()
            || !plan.modrm
            || raw.vex.is_some()
            || plan.gprs.iter().flatten().any(|gpr| gpr.high)
            // Locked with an operand in memory; bits beyond the operand.
            || matches!(i.mnemonic(), Xchg | Xadd | Cmpxchg | Bt | Bts | Btr | Btc)
        {
            return None;
        }
        let find = |field: Field| {
            plan.gprs.iter().enumerate().find_map(|(at, gpr)| gpr.filter(|gpr| gpr.field == field).map(|gpr| (at, gpr)))
        };
        let (at, rm) = find(Field::Rm)?;
        // XOR of a register with itself is said to read nothing: both operands have to be the same then.
        if plan.gprs.iter().flatten().filter(|gpr| gpr.guest == rm.guest).count() > 1 {
            return None;
        }
        // The upper half of a 32-bit result has to be cleared.
        let fits = !rm.write || rm.size != 4;
        if host_register(rm.guest).is_none() {
            let better = rm.or_memory && fits && (self.held(rm.guest).is_none() || rm.write);
            return better.then_some(Direct { operand: at, swap: None });
        }
        let (at, reg) = find(Field::Reg)?;
        let &[opcode] = raw.opcode else { return None };
        if host_register(reg.guest).is_some() || self.held(reg.guest).is_some() || reg.write {
            return None;
        }
        let swapped = match opcode {
            // To the register instead of from it.
            0x00..=0x3f if opcode & 7 < 2 => opcode | 2,
            0x88 | 0x89 => opcode | 2,
            _ if i.mnemonic() == Test => opcode,
            _ => return None,
        };
        Some(Direct { operand: at, swap: Some(swapped) })
    }

    /// Notes which temporary holds a guest's register that is in memory, for the next instruction.
    fn hold(&mut self, plan: &Plan, hosts: &[Option<Reg>; 4], direct: Option<Direct>, undefined: Undefined) {
        if matches!(undefined, Undefined::Product(_) | Undefined::Scan)
            || plan.gprs.iter().flatten().any(|gpr| gpr.high)
        {
            return;
        }
        let pairs = || plan.gprs.iter().zip(hosts).filter_map(|(gpr, host)| Some(((*gpr)?, (*host)?)));
        let mut in_memory = pairs().filter(|(gpr, _)| host_register(gpr.guest).is_none());
        let written = pairs().find(|(gpr, _)| gpr.write && host_register(gpr.guest).is_none());
        let direct = direct.and_then(|direct| plan.gprs[direct.operand]);
        self.held_next = match written.or_else(|| in_memory.next()) {
            Some((gpr, host)) => Some((gpr.guest, host)),
            None if plan.access.is_some() || plan.count => None,
            None => self.held,
        };
        if direct.is_some_and(|gpr| gpr.write && self.held_next.is_some_and(|(guest, _)| guest == gpr.guest)) {
            self.held_next = None;
        }
    }

    fn emit_again(&mut self, raw: &Raw<'_>, plan: &Plan, hosts: &[Option<Reg>; 4], memory: Option<Rm>, swap: bool) {
        let encoded = |gpr: &Gpr, host: Reg| if gpr.high { host + 4 } else { host };
        let of = |field: Field| {
            plan.gprs.iter().zip(hosts).find_map(|(gpr, host)| match (gpr, host) {
                (Some(gpr), &Some(host)) if gpr.field == field => Some(encoded(gpr, host)),
                _ => None,
            })
        };
        let narrow = plan.gprs.iter().zip(hosts).any(|(gpr, host)| match (gpr, host) {
            (Some(gpr), &Some(host)) => gpr.size == 1 && !gpr.high && (4..8).contains(&host),
            _ => false,
        });
        let code = &mut self.code;
        let reg = of(if swap { Field::Rm } else { Field::Reg }).unwrap_or_else(|| raw.reg());
        let rm = memory.unwrap_or_else(|| Rm::Reg(of(Field::Rm).unwrap_or_else(|| raw.rm())));
        if let Some(vex) = raw.vex {
            let v = of(Field::V).unwrap_or(vex.v);
            code.vex(vex.map, vex.pp, (vex.wide, vex.long), reg, rm, v);
            code.raw(raw.opcode);
            // VZEROUPPER and VZEROALL are the only ones without ModRM.
            if plan.modrm {
                code.modrm(reg, rm);
            }
        } else if plan.modrm {
            raw.prefixes().for_each(|prefix| code.byte(prefix));
            code.op(Opcode { wide: raw.wide(), rex: narrow, bytes: raw.opcode, ..Opcode::default() }, reg, rm);
        } else {
            raw.prefixes().for_each(|prefix| code.byte(prefix));
            let mut opcode = [0; 3];
            let opcode = &mut opcode[..raw.opcode.len()];
            opcode.copy_from_slice(raw.opcode);
            let mut rex = raw.rex & 8;
            if let (Some(host), [.., last]) = (of(Field::Opcode), &mut *opcode) {
                *last = *last & !7 | host & 7;
                rex |= host >> 3;
            }
            if rex != 0 || narrow {
                code.byte(0x40 | rex);
            }
            code.raw(opcode);
        }
        code.raw(raw.immediate);
    }
}

/// A register operand that is emitted as memory.
#[derive(Clone, Copy)]
struct Direct {
    operand: usize,
    /// The opcode with the operands the other way round: it was in the reg field.
    swap: Option<u8>,
}

/// The host's registers for the operands; temporaries for those that have none. `held` is a guest's register that a temporary holds.
fn assign(plan: &Plan, direct: Option<usize>, held: Option<(u8, Reg)>) -> Option<[Option<Reg>; 4]> {
    let high = plan.gprs.iter().flatten().any(|gpr| gpr.high);
    let free: &[Reg] = match (plan.access.is_some(), plan.count, high) {
        // An instruction with AH and the like has no REX prefix: RCX is the only temporary, or holds the address.
        (true, _, true) => &[],
        (false, false, true) => &[RCX],
        (false, true, true) => &[],
        (true, false, false) => &[RCX, R15],
        (true, true, false) => &[R15],
        (false, false, false) => &[R14, R15, RCX],
        (false, true, false) => &[R14, R15],
    };
    let mut free = free.iter().filter(|&&free| held.is_none_or(|(_, held)| held != free));
    let mut hosts: [Option<Reg>; 4] = [None; 4];
    for index in 0..4 {
        let Some(gpr) = plan.gprs[index].filter(|_| direct != Some(index)) else { continue };
        if gpr.high && gpr.guest == 1 {
            return None;
        }
        let same = (0..index).find(|&other| plan.gprs[other].is_some_and(|other| other.guest == gpr.guest));
        let own = host_register(gpr.guest);
        hosts[index] = match own {
            Some(host) if !high || host < 8 => Some(host),
            // CL beside AH: a copy, which must not be written.
            _ if high && gpr.write => return None,
            _ => match same.and_then(|other| hosts[other]) {
                Some(host) => Some(host),
                None => match held {
                    Some((guest, held)) if guest == gpr.guest => Some(held),
                    _ => Some(*free.next()?),
                },
            },
        };
    }
    Some(hosts)
}

/// Instructions without vector registers that may be emitted again: their implicit registers are RAX, RDX and CL, which are where they belong. Without
/// an operand in memory none of them traps.
pub(super) fn integer(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Mov | Movzx
            | Movsx
            | Movsxd
            | Movnti
            | Movbe
            | Bswap
            | Xchg
            | Xadd
            | Cmpxchg
            | Add
            | Adc
            | Sub
            | Sbb
            | And
            | Or
            | Xor
            | Cmp
            | Test
            | Inc
            | Dec
            | Neg
            | Not
            | Imul
            | Mul
            | Shl
            | Sal
            | Shr
            | Sar
            | Rol
            | Ror
            | Rcl
            | Rcr
            | Shld
            | Shrd
            | Bsf
            | Bsr
            | Tzcnt
            | Lzcnt
            | Popcnt
            | Andn
            | Blsr
            | Blsmsk
            | Blsi
            | Bextr
            | Bzhi
            | Pdep
            | Pext
            | Mulx
            | Rorx
            | Sarx
            | Shlx
            | Shrx
            | Adcx
            | Adox
            | Crc32
            | Cbw
            | Cwde
            | Cdqe
            | Cwd
            | Cdq
            | Cqo
            | Lahf
            | Sahf
            | Cmc
            | Clc
            | Stc
            | Bt
            | Bts
            | Btr
            | Btc
            | Cmova
            | Cmovae
            | Cmovb
            | Cmovbe
            | Cmove
            | Cmovg
            | Cmovge
            | Cmovl
            | Cmovle
            | Cmovne
            | Cmovno
            | Cmovnp
            | Cmovns
            | Cmovo
            | Cmovp
            | Cmovs
            | Seta
            | Setae
            | Setb
            | Setbe
            | Sete
            | Setg
            | Setge
            | Setl
            | Setle
            | Setne
            | Setno
            | Setnp
            | Setns
            | Seto
            | Setp
            | Sets
    )
}
