//! Random instructions of a given code, and states in which they find something to do.

use crate::random::Random;
use crate::state::{SCRATCH, SCRATCH_SIZE, START, State, TAKEN, XSAVE_SIZE};
use iced_x86::{Code, Encoder, Instruction, Mnemonic, OpCodeOperandKind as Kind, OpKind, Register};

/// An encoded instruction.
#[derive(Clone, Debug)]
pub struct Case {
    /// As decoded.
    pub instruction: Instruction,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Middle of the memory where operands lie, and where the stack lies.
const DATA: u64 = SCRATCH + 0x800;
const STACK: u64 = SCRATCH + 0x2400;

/// A random encoding of `code`; `None` if iced cannot encode what was drawn.
pub fn instruction(code: Code, random: &mut Random) -> Option<Case> {
    for _ in 0..20 {
        let Some(mut instruction) = draw(code, random) else { continue };
        instruction.set_ip(START);
        let mut encoder = Encoder::new(64);
        if encoder.encode(&instruction, START).is_err() {
            continue;
        }
        let bytes = encoder.take_buffer();
        let mut decoder = iced_x86::Decoder::with_ip(64, &bytes, START, 0);
        let decoded = decoder.decode();
        // Another code may share the bytes.
        if decoded.code() == code && decoded.len() == bytes.len() {
            return Some(Case { instruction: decoded, bytes });
        }
    }
    None
}

fn draw(code: Code, random: &mut Random) -> Option<Instruction> {
    let info = code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    for i in 0..info.op_count() {
        operand(&mut instruction, i, info.op_kind(i), random)?;
    }
    // EDX:EAX says what XSAVE and XRSTOR save: the host may have components that we have not.
    let names = |register: Register| matches!(register.full_register(), Register::RAX | Register::RDX);
    if saves_state(instruction.mnemonic()) && (names(instruction.memory_base()) || names(instruction.memory_index())) {
        return None;
    }
    if info.can_use_lock_prefix() && instruction.op0_kind() == OpKind::Memory && random.once_in(3) {
        instruction.set_has_lock_prefix(true);
    }
    let string = (0..instruction.op_count()).any(|i| {
        matches!(
            instruction.op_kind(i),
            OpKind::MemorySegRSI | OpKind::MemoryESRDI | OpKind::MemorySegESI | OpKind::MemoryESEDI
        )
    });
    if string && random.once_in(2) {
        if info.can_use_repne_prefix() && random.once_in(2) {
            instruction.set_has_repne_prefix(true);
        } else if info.can_use_rep_prefix() {
            instruction.set_has_rep_prefix(true);
        }
    }
    Some(instruction)
}

fn operand(instruction: &mut Instruction, i: u32, kind: Kind, random: &mut Random) -> Option<()> {
    let general = |random: &mut Random, first: Register| first + random.below(16) as u32;
    let byte = |random: &mut Random| {
        // SPL to R15L, or AH to BH.
        if random.once_in(4) { Register::AH + random.below(4) as u32 } else { Register::R8L + random.below(8) as u32 }
    };
    let low_byte = |random: &mut Random| match random.below(3) {
        0 => Register::AL + random.below(4) as u32,
        1 => Register::SPL + random.below(4) as u32,
        _ => byte(random),
    };
    let memory_instead = random.once_in(2);
    let register = match kind {
        Kind::r8_or_mem
        | Kind::r16_or_mem
        | Kind::r32_or_mem
        | Kind::r64_or_mem
        | Kind::mm_or_mem
        | Kind::xmm_or_mem
        | Kind::ymm_or_mem
            if memory_instead =>
        {
            instruction.set_op_kind(i, OpKind::Memory);
            memory(instruction, random);
            return Some(());
        }
        Kind::mem => {
            instruction.set_op_kind(i, OpKind::Memory);
            memory(instruction, random);
            return Some(());
        }
        Kind::mem_vsib32x | Kind::mem_vsib64x | Kind::mem_vsib32y | Kind::mem_vsib64y => {
            instruction.set_op_kind(i, OpKind::Memory);
            instruction.set_memory_base(general(random, Register::RAX));
            let first =
                if matches!(kind, Kind::mem_vsib32x | Kind::mem_vsib64x) { Register::XMM0 } else { Register::YMM0 };
            instruction.set_memory_index(general(random, first));
            instruction.set_memory_index_scale(1 << random.below(4));
            instruction.set_memory_displ_size(1);
            instruction.set_memory_displacement64((random.below(128)) as i8 as i64 as u64);
            return Some(());
        }
        Kind::mem_offs => {
            instruction.set_op_kind(i, OpKind::Memory);
            instruction.set_memory_displ_size(8);
            instruction.set_memory_displacement64(DATA + random.below(0x400));
            return Some(());
        }
        Kind::seg_rSI => {
            instruction.set_op_kind(i, OpKind::MemorySegRSI);
            return Some(());
        }
        Kind::es_rDI => {
            instruction.set_op_kind(i, OpKind::MemoryESRDI);
            return Some(());
        }
        Kind::seg_rDI => {
            instruction.set_op_kind(i, OpKind::MemorySegRDI);
            return Some(());
        }
        Kind::seg_rBX_al => {
            instruction.set_op_kind(i, OpKind::Memory);
            instruction.set_memory_base(Register::RBX);
            instruction.set_memory_index(Register::AL);
            return Some(());
        }
        Kind::br32_1 | Kind::br32_4 => return None,
        Kind::br64_1 | Kind::br64_4 => {
            instruction.set_op_kind(i, OpKind::NearBranch64);
            instruction.set_near_branch64(random.pick(&TAKEN));
            return Some(());
        }
        _ if immediate(instruction, i, kind, random) => return Some(()),
        Kind::r8_or_mem | Kind::r8_reg | Kind::r8_opcode => low_byte(random),
        Kind::r16_or_mem | Kind::r16_reg | Kind::r16_reg_mem | Kind::r16_rm | Kind::r16_opcode => {
            general(random, Register::AX)
        }
        Kind::r32_or_mem | Kind::r32_reg | Kind::r32_reg_mem | Kind::r32_rm | Kind::r32_opcode | Kind::r32_vvvv => {
            general(random, Register::EAX)
        }
        Kind::r64_or_mem | Kind::r64_reg | Kind::r64_reg_mem | Kind::r64_rm | Kind::r64_opcode | Kind::r64_vvvv => {
            general(random, Register::RAX)
        }
        Kind::seg_reg => Register::ES + random.below(6) as u32,
        Kind::mm_or_mem | Kind::mm_reg | Kind::mm_rm => Register::MM0 + random.below(8) as u32,
        Kind::xmm_or_mem | Kind::xmm_reg | Kind::xmm_rm | Kind::xmm_vvvv | Kind::xmm_is4 => {
            general(random, Register::XMM0)
        }
        Kind::ymm_or_mem | Kind::ymm_reg | Kind::ymm_rm | Kind::ymm_vvvv | Kind::ymm_is4 => {
            general(random, Register::YMM0)
        }
        Kind::es => Register::ES,
        Kind::cs => Register::CS,
        Kind::ss => Register::SS,
        Kind::ds => Register::DS,
        Kind::fs => Register::FS,
        Kind::gs => Register::GS,
        Kind::al => Register::AL,
        Kind::cl => Register::CL,
        Kind::ax => Register::AX,
        Kind::dx => Register::DX,
        Kind::eax => Register::EAX,
        Kind::rax => Register::RAX,
        Kind::st0 => Register::ST0,
        Kind::sti_opcode => Register::ST0 + random.below(8) as u32,
        _ => return None,
    };
    instruction.set_op_kind(i, OpKind::Register);
    instruction.set_op_register(i, register);
    Some(())
}

fn immediate(instruction: &mut Instruction, i: u32, kind: Kind, random: &mut Random) -> bool {
    let value = random.integer();
    match kind {
        Kind::imm8 if i > 0 && instruction.op_kind(i - 1) == OpKind::Immediate16 => {
            // ENTER's nesting level, shallow enough for the stack there is.
            instruction.set_op_kind(i, OpKind::Immediate8_2nd);
            instruction.set_immediate8_2nd(value as u8 & 0x27);
        }
        Kind::imm8 => {
            instruction.set_op_kind(i, OpKind::Immediate8);
            instruction.set_immediate8(value as u8);
        }
        Kind::imm8_const_1 => {
            instruction.set_op_kind(i, OpKind::Immediate8);
            instruction.set_immediate8(1);
        }
        Kind::imm8sex16 => {
            instruction.set_op_kind(i, OpKind::Immediate8to16);
            instruction.set_immediate8to16((value as i8).into());
        }
        Kind::imm8sex32 => {
            instruction.set_op_kind(i, OpKind::Immediate8to32);
            instruction.set_immediate8to32((value as i8).into());
        }
        Kind::imm8sex64 => {
            instruction.set_op_kind(i, OpKind::Immediate8to64);
            instruction.set_immediate8to64((value as i8).into());
        }
        Kind::imm16 => {
            instruction.set_op_kind(i, OpKind::Immediate16);
            let frame = matches!(instruction.mnemonic(), Mnemonic::Enter | Mnemonic::Ret);
            instruction.set_immediate16(if frame { value as u16 & 0xff } else { value as u16 });
        }
        Kind::imm32 => {
            instruction.set_op_kind(i, OpKind::Immediate32);
            instruction.set_immediate32(value as u32);
        }
        Kind::imm32sex64 => {
            instruction.set_op_kind(i, OpKind::Immediate32to64);
            instruction.set_immediate32to64((value as i32).into());
        }
        Kind::imm64 => {
            instruction.set_op_kind(i, OpKind::Immediate64);
            instruction.set_immediate64(value);
        }
        _ => return false,
    }
    true
}

/// A memory operand: base, index, displacement of any size, RIP-relative, 32-bit addressing.
fn memory(instruction: &mut Instruction, random: &mut Random) {
    if random.once_in(12) {
        instruction.set_memory_base(Register::RIP);
        instruction.set_memory_displ_size(8);
        instruction.set_memory_displacement64(DATA + random.below(0x400));
        return;
    }
    let narrow = random.once_in(10);
    let first = if narrow { Register::EAX } else { Register::RAX };
    let base = random.below(16) as u32;
    instruction.set_memory_base(first + base);
    if random.once_in(3) {
        let index = random.below(16) as u32;
        if index != 4 && index != base {
            instruction.set_memory_index(first + index);
            instruction.set_memory_index_scale(1 << random.below(4));
        }
    }
    match random.below(3) {
        0 => instruction.set_memory_displ_size(0),
        1 => {
            instruction.set_memory_displ_size(1);
            instruction.set_memory_displacement64(random.below(256) as i8 as i64 as u64);
        }
        _ => {
            instruction.set_memory_displ_size(if narrow { 4 } else { 8 });
            instruction.set_memory_displacement64((random.draw() as i32 >> random.below(20)) as i64 as u64);
        }
    }
    if narrow {
        let displacement = instruction.memory_displacement64() as u32;
        instruction.set_memory_displacement64(displacement.into());
    }
}

/// A random state for `case`, and the scratch memory to go with it.
pub fn state(case: &Case, random: &mut Random, memory: &mut [u8; SCRATCH_SIZE]) -> State {
    let mut state = State::new();
    for gpr in &mut state.gpr {
        *gpr = random.integer();
    }
    state.rflags = 0x202 | random.draw() & 0x8d5;
    if random.once_in(4) {
        state.rflags |= 0x400;
    }
    vectors(&mut state, random);
    x87(&mut state, random);
    state.gpr[4] = STACK + 8 * random.below(64);
    place_operands(case, &mut state, random, memory);
    state
}

fn vectors(state: &mut State, random: &mut Random) {
    let alike = random.once_in(4);
    let shared = random.quadword();
    for n in 0..16 {
        for quad in 0..4 {
            let value = if alike && random.once_in(2) { shared } else { random.quadword() };
            state.set_u64(State::vector(n, quad), value);
        }
    }
    let r = random.draw() as u32;
    let mut mxcsr = 0x1f80 | r & 0x3f;
    if r & 0x100 != 0 {
        mxcsr |= r >> 8 & 0xe040;
    }
    // Unmasked exceptions now and then.
    if random.once_in(8) {
        mxcsr &= !(random.draw() as u32 & 0x1f80);
    }
    state.set_u32(24, mxcsr);
}

fn x87(state: &mut State, random: &mut Random) {
    for i in 0..8 {
        let (significand, mut sign_exponent) = random.extended();
        let significand = if random.once_in(4) { random.quadword() } else { significand };
        if i > 0 && random.once_in(3) {
            // Near ST(0).
            sign_exponent = state.st(0).1.wrapping_add(random.below(70) as u16).wrapping_sub(35);
        }
        state.set_u64(32 + 16 * i, significand);
        state.set_u16(40 + 16 * i, sign_exponent);
    }
    let r = random.draw();
    let mut control = 0x37f;
    if r & 1 != 0 {
        control = control & !0xf00 | r as u16 & 0xf00;
    }
    if random.once_in(5) {
        control &= !(random.draw() as u16 & 0x3f);
    }
    state.set_u16(0, control);
    let mut status = (r >> 16) as u16 & 0x7f3f;
    // Flags of unmasked exceptions would be pending: rarely.
    if !random.once_in(30) {
        status &= control | 0xffc0;
    }
    if status & !control & 0x3f != 0 {
        status |= 0x8080;
    }
    state.set_u16(2, status);
    state.xsave[4] = match r >> 40 & 7 {
        0..=3 => 0xff,
        4 => (r >> 48) as u8,
        // ST(0) and ST(1) valid, room to push.
        _ => ((3u16 | (r >> 48) as u16 & 0x7f) << (status >> 11 & 7)).to_le_bytes().iter().fold(0, |a, b| a | b),
    };
}

fn place_operands(case: &Case, state: &mut State, random: &mut Random, memory: &mut [u8; SCRATCH_SIZE]) {
    let instruction = &case.instruction;
    let mnemonic = instruction.mnemonic();
    for register in [6, 7] {
        if string_like(instruction)
            || mnemonic == Mnemonic::Maskmovdqu
            || mnemonic == Mnemonic::Maskmovq
            || mnemonic == Mnemonic::Vmaskmovdqu
        {
            state.gpr[register] = DATA + random.below(0x600);
            if random.once_in(50) {
                state.gpr[register] = SCRATCH + SCRATCH_SIZE as u64 - random.below(64);
            }
        }
    }
    if instruction.has_rep_prefix() || instruction.has_repne_prefix() {
        state.gpr[1] = random.below(40);
    }
    if mnemonic == Mnemonic::Enter || mnemonic == Mnemonic::Leave {
        state.gpr[5] = STACK + 8 * random.below(32);
    }
    if matches!(mnemonic, Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && instruction.op0_kind() == OpKind::Memory
        && instruction.op1_kind() == OpKind::Register
    {
        let number = instruction.op1_register().number();
        if number != 4 {
            state.gpr[number] = (random.below(0x2000) as i64 - 0x1000) as u64;
        }
    }
    if matches!(mnemonic, Mnemonic::Div | Mnemonic::Idiv) && !random.once_in(4) {
        state.gpr[2] = match random.below(3) {
            0 => 0,
            1 => (state.gpr[0] as i64 >> 63) as u64,
            _ => random.below(64),
        };
        if random.once_in(2) {
            state.gpr[0] = random.draw() >> random.below(64);
        }
    }
    if saves_state(mnemonic) {
        // The components: x87, SSE, AVX, and none of others that the host may have. Before the address is made, which may use these registers.
        state.gpr[0] = state.gpr[0] & !0xf_ffff | random.below(8);
        state.gpr[2] = 0;
    }
    let address = if (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory) {
        memory_operand(case, state, random)
    } else {
        None
    };
    let mut put = |address: u64, value: u64| {
        for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
            let at = address.wrapping_sub(SCRATCH).wrapping_add(i as u64) as usize;
            if let Some(place) = memory.get_mut(at) {
                *place = byte;
            }
        }
    };
    if let Some(address) = address {
        for i in 0..8 {
            put(address.wrapping_add(8 * i), random.quadword());
        }
        if random.once_in(3) && !matches!(mnemonic, Mnemonic::Jmp | Mnemonic::Call) {
            // 80-bit numbers and packed decimals.
            let (significand, sign_exponent) = random.extended();
            put(address, significand);
            put(address.wrapping_add(8), sign_exponent.into());
        }
        if matches!(mnemonic, Mnemonic::Fbld) {
            let digits = (0..18).fold(0u128, |v, _| v << 4 | u128::from(random.below(10)));
            put(address, digits as u64);
            put(address.wrapping_add(8), (digits >> 64) as u64 | random.below(2) << 15);
        }
        if matches!(mnemonic, Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b | Mnemonic::Cmpxchg) && random.once_in(2) {
            put(address, state.gpr[0]);
            if mnemonic == Mnemonic::Cmpxchg8b {
                put(address.wrapping_add(4), state.gpr[2]);
            } else {
                put(address.wrapping_add(8), state.gpr[2]);
            }
        }
        if mnemonic == Mnemonic::Fldcw {
            put(address, 0x37f ^ random.draw() & 0xffff & if random.once_in(2) { 0xffff } else { 0xf00 });
        }
        if mnemonic == Mnemonic::Ldmxcsr || mnemonic == Mnemonic::Vldmxcsr {
            let value = if random.once_in(8) { random.draw() } else { random.draw() & 0xffff };
            put(address, value);
        }
        if matches!(mnemonic, Mnemonic::Jmp | Mnemonic::Call) {
            put(address, TAKEN[0]);
        }
        if saves_state(mnemonic) {
            let mut image = State::new();
            vectors(&mut image, random);
            x87(&mut image, random);
            if matches!(mnemonic, Mnemonic::Fldenv | Mnemonic::Frstor) {
                environment(&mut image, case, random);
            }
            image.set_u64(512, random.below(8));
            if random.once_in(20) {
                // A bit that no processor has a meaning for, or the mark of the compacted form.
                image.set_u64(512 + 8 * random.below(8) as usize, 1 << (20 + random.below(44)));
            }
            for at in (0..XSAVE_SIZE).step_by(8) {
                put(address.wrapping_add(at as u64), image.u64(at));
            }
        }
    }
    match mnemonic {
        Mnemonic::Jmp | Mnemonic::Call if instruction.op0_kind() == OpKind::Register => {
            // Not through the stack pointer, which CALL needs.
            state.gpr[instruction.op0_register().number()] = TAKEN[0];
            if instruction.op0_register().number() == 4 {
                // The stack is then in the code's page: fine for a jump; a call writes below the branch target.
            }
        }
        Mnemonic::Ret => put(state.gpr[4], TAKEN[0]),
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => {
            // No trap flag, alignment check or nested task: the host would stop in the harness.
            put(state.gpr[4], random.draw() & 0x20_0cd5 | 0x202);
        }
        _ => {}
    }
}

/// FXSAVE, XSAVE, FNSAVE and their relatives: the memory operand is an image of the state.
pub fn saves_state(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Fldenv, Fnsave, Fnstenv, Frstor, Fxrstor, Fxrstor64, Fxsave, Fxsave64};
    use Mnemonic::{Xrstor, Xrstor64, Xsave, Xsave64, Xsavec, Xsavec64};
    matches!(
        mnemonic,
        Fldenv
            | Fnsave
            | Fnstenv
            | Frstor
            | Fxrstor
            | Fxrstor64
            | Fxsave
            | Fxsave64
            | Xrstor
            | Xrstor64
            | Xsave
            | Xsave64
            | Xsavec
            | Xsavec64
    )
}

/// Makes an image in the format of FLDENV and FRSTOR of one in that of FXRSTOR.
fn environment(image: &mut State, case: &Case, random: &mut Random) {
    let width = if case.instruction.code().op_code().operand_size() == 16 { 2 } else { 4 };
    let (control, status) = (image.u16(0), image.u16(2));
    let registers: Vec<(u64, u16)> = (0..8).map(|i| image.st(i)).collect();
    for (i, value) in [control, status, random.draw() as u16].into_iter().enumerate() {
        image.set_u16(width * i, value);
        if width == 4 {
            image.set_u16(4 * i + 2, random.draw() as u16);
        }
    }
    for (i, (significand, sign_exponent)) in registers.into_iter().enumerate() {
        image.set_u64(7 * width + 10 * i, significand);
        image.set_u16(7 * width + 10 * i + 8, sign_exponent);
    }
}

fn string_like(instruction: &Instruction) -> bool {
    (0..instruction.op_count())
        .any(|i| matches!(instruction.op_kind(i), OpKind::MemorySegRSI | OpKind::MemoryESRDI | OpKind::MemorySegRDI))
}

/// Sets the registers of the address so that the operand lies in the scratch memory; returns where.
fn memory_operand(case: &Case, state: &mut State, random: &mut Random) -> Option<u64> {
    let instruction = &case.instruction;
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let mut address = DATA + if random.once_in(4) { random.below(0x400) } else { 64 * random.below(16) };
    match random.below(60) {
        // Across the end of the mapping, before it, nowhere at all.
        0 => address = SCRATCH + SCRATCH_SIZE as u64 - random.below(70),
        1 => address = SCRATCH - random.below(70),
        // Across a page.
        2 => address = SCRATCH + 0x1000 - random.below(40),
        _ => {}
    }
    if base == Register::RIP || base == Register::EIP {
        return Some(instruction.memory_displacement64());
    }
    if base == Register::None {
        return Some(instruction.memory_displacement64());
    }
    let displacement = instruction.memory_displacement64();
    let scale = u64::from(instruction.memory_index_scale());
    if index.is_xmm() || index.is_ymm() {
        for quad in 0..4 {
            let lanes = random.below(0x100) | random.below(0x100) << 32;
            let wide = random.below(0x100);
            let qword = matches!(
                instruction.mnemonic(),
                Mnemonic::Vgatherqpd | Mnemonic::Vgatherqps | Mnemonic::Vpgatherqd | Mnemonic::Vpgatherqq
            );
            state.set_u64(State::vector(index.number(), quad), if qword { wide } else { lanes });
        }
        state.gpr[base.number()] = address.wrapping_sub(displacement);
        return Some(address);
    }
    let mut sum = displacement;
    if index == Register::AL {
        sum = sum.wrapping_add(state.gpr[0] & 0xff);
    } else if index != Register::None {
        sum = sum.wrapping_add(state.gpr[index.number()].wrapping_mul(scale));
    }
    let narrow = base.is_gpr32();
    let value = address.wrapping_sub(sum);
    state.gpr[base.number()] = if narrow { value & 0xffff_ffff | random.draw() << 32 } else { value };
    if !narrow && random.once_in(100) {
        // Not canonical.
        state.gpr[base.number()] ^= 1 << 62;
        return None;
    }
    Some(address)
}
