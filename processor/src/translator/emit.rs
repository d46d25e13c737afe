//! Host instructions as bytes. Nothing here knows of guests.

/// A general register of the host.
pub(super) type Reg = u8;
pub(super) const RAX: Reg = 0;
pub(super) const RCX: Reg = 1;
pub(super) const RDX: Reg = 2;
pub(super) const RSP: Reg = 4;
pub(super) const R12: Reg = 12;
pub(super) const R13: Reg = 13;
pub(super) const R14: Reg = 14;
pub(super) const R15: Reg = 15;

/// What the ModRM byte's r/m field names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rm {
    /// A register.
    Reg(Reg),
    /// `[base + disp]`
    Base(Reg, i32),
    /// `[base + index << scale + disp]`
    Indexed(Reg, Reg, u8, i32),
    /// `[index << scale + disp]`
    Scaled(Reg, u8, i32),
}

impl Rm {
    /// A field of the state block.
    pub(super) fn state(offset: usize) -> Self {
        Self::Base(RSP, offset as i32)
    }

    /// Element `index` of an array of quadwords in the state block.
    pub(super) fn element(offset: usize, index: Reg) -> Self {
        Self::Indexed(RSP, index, 3, offset as i32)
    }

    /// REX.X and REX.B.
    pub(super) fn extension(self) -> (u8, u8) {
        match self {
            Self::Reg(reg) | Self::Base(reg, _) => (0, reg >> 3),
            Self::Indexed(base, index, ..) => (index >> 3, base >> 3),
            Self::Scaled(index, ..) => (index >> 3, 0),
        }
    }
}

/// Which bytes stand before an opcode.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opcode<'a> {
    /// Legacy prefixes in the order wanted.
    pub prefixes: &'a [u8],
    /// REX.W.
    pub wide: bool,
    /// A REX prefix must stand there (SPL to DIL).
    pub rex: bool,
    /// Escape bytes and opcode.
    pub bytes: &'a [u8],
}

/// How bits are taken out of a register, and shifted, while the flags stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// By PEXT and SARX, which touch no flag.
    Bmi2,
    /// By AND, SHR and SAR, while RAX has the flags; what it had is in memory at this displacement from RSP.
    Kept(i32),
}

/// Bits that follow each other: a mask in memory, so far from RSP, and the number of its lowest bit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    at: usize,
    lowest: u8,
}

impl Mask {
    /// The mask at displacement `at`, whose lowest bit is number `lowest`.
    pub(super) const fn from(at: usize, lowest: u8) -> Self {
        Self { at, lowest }
    }

    /// A mask of which only matters whether it has bits in common with a value, or whose lowest bit is number 0.
    pub(super) const fn low(at: usize) -> Self {
        Self { at, lowest: 0 }
    }
}

/// An instruction without its immediate.
#[derive(Default)]
struct Short {
    bytes: [u8; 16],
    length: usize,
}

impl Short {
    fn byte(&mut self, byte: u8) {
        self.bytes[self.length & 15] = byte;
        self.length += 1;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.byte(byte);
        }
    }

    fn dword(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn modrm(&mut self, reg: u8, rm: Rm) {
        let reg = (reg & 7) << 3;
        let sib = |index: Reg, scale: u8, base: Reg| scale << 6 | (index & 7) << 3 | base & 7;
        let (base, disp, sib) = match rm {
            Rm::Reg(register) => return self.byte(0xc0 | reg | register & 7),
            Rm::Scaled(index, scale, disp) => {
                self.byte(reg | 4);
                self.byte(sib(index, scale, 5));
                return self.dword(disp as u32);
            }
            Rm::Base(base, disp) => (base, disp, (base & 7 == 4).then_some(0x24)),
            Rm::Indexed(base, index, scale, disp) => (base, disp, Some(sib(index, scale, base))),
        };
        let mode = if disp == 0 && base & 7 != 5 {
            0
        } else if i8::try_from(disp).is_ok() {
            0x40
        } else {
            0x80
        };
        self.byte(mode | reg | if sib.is_some() { 4 } else { base & 7 });
        if let Some(sib) = sib {
            self.byte(sib);
        }
        match mode {
            0x40 => self.byte(disp as u8),
            0x80 => self.dword(disp as u32),
            _ => {}
        }
    }
}

/// Bytes that will be executed at `origin`.
#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    origin: u64,
}

impl Part {
    /// Where `address`, or the end of the code, is in the bytes.
    fn place(&self, address: u64) -> Option<usize> {
        let at = address.wrapping_sub(self.origin) as usize;
        (at <= self.bytes.len()).then_some(at)
    }
}

/// Collects the bytes of code in two parts, which will be executed at two places.
pub(super) struct Emitter {
    /// What is emitted.
    part: Part,
    /// What was emitted, or will be.
    other: Part,
    quiet: Quiet,
}

impl Emitter {
    /// Of one part only.
    pub(super) fn new(origin: u64, quiet: Quiet) -> Self {
        Self { part: Part { bytes: Vec::new(), origin }, other: Part::default(), quiet }
    }

    /// With a second part at `second`, for [`Emitter::second_part`]. `memory` is for the bytes.
    pub(super) fn in_two_parts([origin, second]: [u64; 2], quiet: Quiet, memory: [Vec<u8>; 2]) -> Self {
        let [part, other] = memory.map(|mut bytes| {
            bytes.clear();
            bytes
        });
        Self { part: Part { bytes: part, origin }, other: Part { bytes: other, origin: second }, quiet }
    }

    /// Goes on in the second part. The code up to here must not go on behind itself.
    pub(super) fn second_part(&mut self) {
        std::mem::swap(&mut self.part, &mut self.other);
    }

    /// What both parts have become, the one that is emitted last.
    pub(super) fn into_parts(self) -> [Vec<u8>; 2] {
        [self.other.bytes, self.part.bytes]
    }

    /// How bits are taken out of a register.
    pub(super) fn quiet(&self) -> Quiet {
        self.quiet
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.part.bytes
    }

    /// Address of the next byte.
    pub(super) fn here(&self) -> u64 {
        self.part.origin + self.part.bytes.len() as u64
    }

    /// The bytes from the address `start` on.
    pub(super) fn from(&self, start: u64) -> &[u8] {
        self.part.place(start).and_then(|at| self.part.bytes.get(at..)).unwrap_or_default()
    }

    /// Forgets them.
    pub(super) fn back_to(&mut self, start: u64) {
        if let Some(at) = self.part.place(start) {
            self.part.bytes.truncate(at);
        }
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.part.bytes.push(byte);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.part.bytes.extend_from_slice(bytes);
    }

    pub(super) fn dword(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// ModRM, SIB and displacement.
    pub(super) fn modrm(&mut self, reg: u8, rm: Rm) {
        let mut short = Short::default();
        short.modrm(reg, rm);
        self.short(short);
    }

    fn short(&mut self, short: Short) {
        // So many bytes at once are two instructions of the host, their number is a call.
        let bytes = &mut self.part.bytes;
        bytes.extend_from_slice(&short.bytes);
        bytes.truncate(bytes.len() - (short.bytes.len() - short.length));
    }

    /// An instruction with a ModRM byte.
    pub(super) fn op(&mut self, opcode: Opcode<'_>, reg: u8, rm: Rm) {
        let mut short = Short::default();
        short.bytes(opcode.prefixes);
        let (x, b) = rm.extension();
        let rex = u8::from(opcode.wide) << 3 | (reg >> 3) << 2 | x << 1 | b;
        if rex != 0 || opcode.rex {
            short.byte(0x40 | rex);
        }
        short.bytes(opcode.bytes);
        short.modrm(reg, rm);
        self.short(short);
    }

    /// A 64-bit instruction of one opcode byte.
    pub(super) fn op64(&mut self, opcode: u8, reg: Reg, rm: Rm) {
        self.op(Opcode { wide: true, bytes: &[opcode], ..Opcode::default() }, reg, rm);
    }

    /// A 32-bit instruction of one opcode byte.
    pub(super) fn op32(&mut self, opcode: u8, reg: Reg, rm: Rm) {
        self.op(Opcode { bytes: &[opcode], ..Opcode::default() }, reg, rm);
    }

    /// The three bytes of a VEX prefix; `v` is the register of vvvv, not inverted.
    pub(super) fn vex(&mut self, map: u8, pp: u8, wide_long: (bool, bool), reg: u8, rm: Rm, v: u8) {
        let (x, b) = rm.extension();
        self.byte(0xc4);
        self.byte((!reg >> 3 & 1) << 7 | (!x & 1) << 6 | (!b & 1) << 5 | map);
        self.byte(u8::from(wide_long.0) << 7 | (!v & 15) << 3 | u8::from(wide_long.1) << 2 | pp);
    }

    /// `mov to, from`
    pub(super) fn load(&mut self, to: Reg, from: Rm) {
        self.op64(0x8b, to, from);
    }

    /// `mov to, from`, 32 bits.
    pub(super) fn load32(&mut self, to: Reg, from: Rm) {
        self.op32(0x8b, to, from);
    }

    /// `movzx to, word from`
    pub(super) fn load16(&mut self, to: Reg, from: Rm) {
        self.op(Opcode { bytes: &[0x0f, 0xb7], ..Opcode::default() }, to, from);
    }

    /// `mov to, word from`: the rest stays.
    pub(super) fn load_low16(&mut self, to: Reg, from: Rm) {
        self.op(Opcode { prefixes: &[0x66], bytes: &[0x8b], ..Opcode::default() }, to, from);
    }

    /// `mov word to, from`
    pub(super) fn store16(&mut self, to: Rm, from: Reg) {
        self.op(Opcode { prefixes: &[0x66], bytes: &[0x89], ..Opcode::default() }, from, to);
    }

    /// `pop to`
    pub(super) fn pop(&mut self, to: Rm) {
        self.op32(0x8f, 0, to);
    }

    /// `mov to, from`
    pub(super) fn store(&mut self, to: Rm, from: Reg) {
        self.op64(0x89, from, to);
    }

    /// `lea to, [at]`
    pub(super) fn lea(&mut self, to: Reg, at: Rm) {
        self.op64(0x8d, to, at);
    }

    /// The bits of `from` under `mask` into `to`, which is not RAX: shifted down, and zero if there are none. No flag is touched.
    pub(super) fn extract(&mut self, to: Reg, from: Reg, mask: Mask) {
        debug_assert!(to != RAX);
        let at = Rm::state(mask.at);
        match self.quiet {
            Quiet::Bmi2 => {
                self.vex(2, 2, (true, false), to, at, from); // pext
                self.byte(0xf5);
                self.modrm(to, at);
            }
            Quiet::Kept(home) => {
                if to != from {
                    self.store(Rm::Reg(to), from);
                }
                self.keep_flags(home);
                self.op64(0x23, to, at); // and
                if mask.lowest != 0 {
                    self.op64(0xc1, 5, Rm::Reg(to)); // shr
                    self.byte(mask.lowest);
                }
                self.give_flags_back(home);
            }
        }
    }

    /// `register >> by`, with its sign. No flag is touched, RCX is used.
    pub(super) fn shift_right(&mut self, register: Reg, by: u8) {
        debug_assert!(register != RAX && register != RCX);
        match self.quiet {
            Quiet::Bmi2 => {
                self.constant(RCX, u64::from(by));
                self.vex(2, 2, (true, false), register, Rm::Reg(register), RCX); // sarx
                self.byte(0xf7);
                self.modrm(register, Rm::Reg(register));
            }
            Quiet::Kept(home) => {
                self.keep_flags(home);
                self.op64(0xc1, 7, Rm::Reg(register)); // sar
                self.byte(by);
                self.give_flags_back(home);
            }
        }
    }

    /// RAX into memory at `home` from RSP, and the status flags, as LAHF and SETO AL give them, into AX.
    pub(super) fn keep_flags(&mut self, home: i32) {
        self.store(Rm::Base(RSP, home), RAX);
        self.raw(&[0x9f, 0x0f, 0x90, 0xc0]); // lahf; seto al
    }

    /// The other way round.
    pub(super) fn give_flags_back(&mut self, home: i32) {
        self.raw(&[0x04, 0x7f, 0x9e]); // add al, 0x7f; sahf
        self.load(RAX, Rm::Base(RSP, home));
    }

    /// `lea to, [base + index + disp]`, with a doubleword for what comes last, which may be changed later. Gives where that ends.
    pub(super) fn lea_changeable(&mut self, to: Reg, base: Reg, index: Reg, disp: i32) -> u64 {
        self.raw(&[0x48 | to >> 3 << 2 | index >> 3 << 1 | base >> 3, 0x8d]);
        self.raw(&[0x84 | (to & 7) << 3, (index & 7) << 3 | base & 7]);
        self.dword(disp as u32);
        self.here()
    }

    /// Loads a constant.
    pub(super) fn constant(&mut self, to: Reg, value: u64) {
        if let Ok(value) = u32::try_from(value) {
            if to >= 8 {
                self.byte(0x41);
            }
            self.byte(0xb8 | to & 7);
            self.dword(value);
        } else if i32::try_from(value as i64).is_ok() {
            self.op64(0xc7, 0, Rm::Reg(to));
            self.dword(value as u32);
        } else {
            self.raw(&[0x48 | to >> 3, 0xb8 | to & 7]);
            self.raw(&value.to_le_bytes());
        }
    }

    /// `jmp target`
    pub(super) fn jump_to(&mut self, target: u64) {
        self.byte(0xe9);
        self.relative(target);
    }

    /// `call target`
    pub(super) fn call(&mut self, target: u64) {
        self.byte(0xe8);
        self.relative(target);
    }

    fn relative(&mut self, target: u64) {
        let next = self.here() + 4;
        self.dword(target.wrapping_sub(next) as u32);
    }

    /// `jmp` to where [`Emitter::fix`] will say.
    pub(super) fn jump(&mut self) -> Fixup {
        self.raw(&[0xe9, 0, 0, 0, 0]);
        Fixup(self.here())
    }

    /// `jcc` to where [`Emitter::fix`] will say.
    pub(super) fn jump_if(&mut self, condition: u8) -> Fixup {
        self.raw(&[0x0f, 0x80 | condition & 15, 0, 0, 0, 0]);
        Fixup(self.here())
    }

    /// `jcc target`, which is already emitted.
    pub(super) fn jump_back_if(&mut self, condition: u8, target: u64) {
        let distance = target.wrapping_sub(self.here() + 2) as i64;
        match i8::try_from(distance) {
            Ok(distance) => self.raw(&[0x70 | condition & 15, distance as u8]),
            Err(_) => {
                self.raw(&[0x0f, 0x80 | condition & 15]);
                self.relative(target);
            }
        }
    }

    /// `jrcxz` over a long jump: that is taken when RCX is not zero.
    pub(super) fn jump_unless_rcx_zero(&mut self) -> Fixup {
        self.raw(&[0xe3, 5]);
        self.jump()
    }

    /// `jrcxz target`, which is less than 120 bytes back.
    pub(super) fn jump_back_if_rcx_zero(&mut self, target: u64) {
        let distance = target.wrapping_sub(self.here() + 2);
        self.raw(&[0xe3, distance as u8]);
    }

    /// `jrcxz` to where [`Emitter::fix_skip`] will say, less than 128 bytes away.
    pub(super) fn skip_if_rcx_zero(&mut self) -> Fixup {
        self.raw(&[0xe3, 0]);
        Fixup(self.here())
    }

    /// The short jump goes to the next byte.
    pub(super) fn fix_skip(&mut self, fixup: Fixup) {
        let distance = self.here().wrapping_sub(fixup.0) as u8;
        if let Some(end) = self.part.place(fixup.0) {
            self.part.bytes[end - 1] = distance;
        }
    }

    /// `jmp` to an address that a displacement may not reach.
    pub(super) fn far_jump(&mut self, target: u64) {
        self.raw(&[0xff, 0x25, 0, 0, 0, 0]);
        self.raw(&target.to_le_bytes());
    }

    /// The jump, of either part, goes to the next byte.
    pub(super) fn fix(&mut self, fixup: Fixup) {
        let here = self.here();
        self.fix_at(fixup, here);
    }

    /// The jump goes to an address in this code.
    pub(super) fn fix_at(&mut self, fixup: Fixup, target: u64) {
        let distance = target.wrapping_sub(fixup.0) as u32;
        for part in [&mut self.part, &mut self.other] {
            if let Some(end) = part.place(fixup.0).filter(|&end| end >= 4) {
                part.bytes[end - 4..end].copy_from_slice(&distance.to_le_bytes());
            }
        }
    }

    /// The address of a jump's end.
    pub(super) fn end_of(&self, fixup: &Fixup) -> u64 {
        fixup.0
    }
}

/// A jump whose target is not known yet: where it ends.
#[derive(Debug)]
pub(super) struct Fixup(u64);
