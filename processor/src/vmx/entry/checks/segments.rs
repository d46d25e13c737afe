//! Checks on the guest's segment registers (SDM Vol. 3C, 27.3.1.2).

use super::{Checked, View};
use spec::vmx::{EntryCheck as Check, SecondaryControls as Secondary, VmcsField as Field};
use spec::x86::Cr0;
use spec::x86::descriptors::{AccessRights, system_type};

/// The fields of a segment register.
struct Fields {
    selector: Field,
    base: Field,
    limit: Field,
    rights: Field,
}

macro_rules! fields {
    ($selector:ident, $base:ident, $limit:ident, $rights:ident) => {
        Fields { selector: Field::$selector, base: Field::$base, limit: Field::$limit, rights: Field::$rights }
    };
}

const CS: Fields = fields!(GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS);
const SS: Fields = fields!(GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS);
const DS: Fields = fields!(GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS);
const ES: Fields = fields!(GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS);
const FS: Fields = fields!(GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS);
const GS: Fields = fields!(GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS);
const TR: Fields = fields!(GUEST_TR_SELECTOR, GUEST_TR_BASE, GUEST_TR_LIMIT, GUEST_TR_ACCESS_RIGHTS);
const LDTR: Fields = fields!(GUEST_LDTR_SELECTOR, GUEST_LDTR_BASE, GUEST_LDTR_LIMIT, GUEST_LDTR_ACCESS_RIGHTS);
const DATA: [Fields; 4] = [DS, ES, FS, GS];
const ALL: [Fields; 6] = [CS, SS, DS, ES, FS, GS];

const V86_RIGHTS: u64 = 0xf3;

impl View<'_> {
    fn rights(&self, segment: &Fields) -> AccessRights {
        AccessRights(self.vmcs.get32(segment.rights))
    }

    fn is_usable(&self, segment: &Fields) -> bool {
        !self.rights(segment).has(AccessRights::UNUSABLE)
    }

    fn rpl(&self, segment: &Fields) -> u8 {
        (self.get(segment.selector) & 3) as u8
    }

    fn is_unrestricted(&self) -> bool {
        self.secondary.has(Secondary::UNRESTRICTED_GUEST)
    }

    pub(super) fn guest_segments(&self) -> Checked {
        self.selectors()?;
        self.bases()?;
        if self.guest_is_v86() {
            for segment in &ALL {
                self.require(self.get(segment.limit) == 0xffff, Check::V86Limit, segment.limit)?;
            }
            for segment in &ALL {
                self.require(self.get(segment.rights) == V86_RIGHTS, Check::V86AccessRights, segment.rights)?;
            }
        } else {
            self.code_and_data()?;
        }
        self.task_register()?;
        self.local_descriptor_table()
    }

    fn selectors(&self) -> Checked {
        let local = |segment: &Fields| self.get(segment.selector) & 4 != 0;
        self.require(!local(&TR), Check::TrSelectorLocal, TR.selector)?;
        self.require(!(self.is_usable(&LDTR) && local(&LDTR)), Check::LdtrSelectorLocal, LDTR.selector)?;
        let free = self.guest_is_v86() || self.is_unrestricted();
        self.require(free || self.rpl(&SS) == self.rpl(&CS), Check::SsRplNotCsRpl, SS.selector)
    }

    fn bases(&self) -> Checked {
        if self.guest_is_v86() {
            for segment in &ALL {
                let right = self.get(segment.base) == self.get(segment.selector) << 4;
                self.require(right, Check::V86Base, segment.base)?;
            }
        }
        let canonical = |segment: &Fields| {
            self.require(self.is_canonical(self.get(segment.base)), Check::BaseCanonical, segment.base)
        };
        canonical(&TR)?;
        canonical(&FS)?;
        canonical(&GS)?;
        if self.is_usable(&LDTR) {
            canonical(&LDTR)?;
        }
        let low = |segment: &Fields| self.require(self.get(segment.base) >> 32 == 0, Check::BaseHigh, segment.base);
        low(&CS)?;
        for segment in [&SS, &DS, &ES] {
            if self.is_usable(segment) {
                low(segment)?;
            }
        }
        Ok(())
    }

    /// The access rights of CS, SS, DS, ES, FS and GS outside virtual-8086 mode.
    fn code_and_data(&self) -> Checked {
        let unrestricted = self.is_unrestricted();
        let (cs, ss) = (self.rights(&CS), self.rights(&SS));
        // CS counts as usable whatever its bit 16 says.
        let relevant = |segment: &Fields| segment.rights == CS.rights || self.is_usable(segment);

        // Type.
        let cs_type = cs.segment_type();
        let code = matches!(cs_type, 9 | 11 | 13 | 15) || unrestricted && cs_type == 3;
        self.require(code, Check::CsType, CS.rights)?;
        if self.is_usable(&SS) {
            self.require(matches!(ss.segment_type(), 3 | 7), Check::SsType, SS.rights)?;
        }
        for segment in DATA.iter().filter(|segment| self.is_usable(segment)) {
            let kind = u32::from(self.rights(segment).segment_type());
            let readable = kind & AccessRights::CODE == 0 || kind & AccessRights::RW != 0;
            self.require(kind & AccessRights::ACCESSED != 0 && readable, Check::DataType, segment.rights)?;
        }
        // S.
        for segment in ALL.iter().filter(|segment| relevant(segment)) {
            self.require(self.rights(segment).is_code_or_data(), Check::SegmentSystem, segment.rights)?;
        }
        // DPL.
        match cs_type {
            3 => self.require(cs.dpl() == 0, Check::CsDplType3, CS.rights)?,
            9 | 11 => self.require(cs.dpl() == ss.dpl(), Check::CsDplNonConforming, CS.rights)?,
            _ => self.require(cs.dpl() <= ss.dpl(), Check::CsDplConforming, CS.rights)?,
        }
        self.require(unrestricted || ss.dpl() == self.rpl(&SS), Check::SsDplNotRpl, SS.rights)?;
        let at_zero = cs_type == 3 || self.get(Field::GUEST_CR0) & Cr0::PE == 0;
        self.require(!at_zero || ss.dpl() == 0, Check::SsDplNotZero, SS.rights)?;
        if !unrestricted {
            for segment in DATA.iter().filter(|segment| self.is_usable(segment)) {
                let rights = self.rights(segment);
                let conforming = rights.segment_type() > 11;
                let reachable = conforming || rights.dpl() >= self.rpl(segment);
                self.require(reachable, Check::DataDplBelowRpl, segment.rights)?;
            }
        }
        // P, reserved bits, D/B, G.
        for segment in ALL.iter().filter(|segment| relevant(segment)) {
            self.require(self.rights(segment).has(AccessRights::P), Check::SegmentNotPresent, segment.rights)?;
        }
        for segment in ALL.iter().filter(|segment| relevant(segment)) {
            let clean = self.rights(segment).0 & AccessRights::RESERVED == 0;
            self.require(clean, Check::SegmentReserved, segment.rights)?;
        }
        let both = self.is_long_guest() && cs.has(AccessRights::L | AccessRights::DB);
        self.require(!both, Check::CsLongAndDefault, CS.rights)?;
        for segment in ALL.iter().filter(|segment| relevant(segment)) {
            self.require(self.granularity_suits(segment), Check::SegmentGranularity, segment.rights)?;
        }
        Ok(())
    }

    fn granularity_suits(&self, segment: &Fields) -> bool {
        let limit = self.get(segment.limit);
        let pages = self.rights(segment).has(AccessRights::G);
        !(pages && limit & 0xfff != 0xfff || !pages && limit >> 20 != 0)
    }

    fn task_register(&self) -> Checked {
        let rights = self.rights(&TR);
        let kind = rights.segment_type();
        let busy = kind == system_type::TSS_BUSY || !self.is_long_guest() && kind == system_type::TSS_16_BUSY;
        self.require(busy, Check::TrType, TR.rights)?;
        self.require(!rights.has(AccessRights::S), Check::TrSystem, TR.rights)?;
        self.require(rights.has(AccessRights::P), Check::TrNotPresent, TR.rights)?;
        self.require(rights.0 & AccessRights::RESERVED == 0, Check::TrReserved, TR.rights)?;
        self.require(self.granularity_suits(&TR), Check::TrGranularity, TR.rights)?;
        self.require(!rights.has(AccessRights::UNUSABLE), Check::TrUnusable, TR.rights)
    }

    fn local_descriptor_table(&self) -> Checked {
        if !self.is_usable(&LDTR) {
            return Ok(());
        }
        let rights = self.rights(&LDTR);
        self.require(rights.segment_type() == system_type::LDT, Check::LdtrType, LDTR.rights)?;
        self.require(!rights.has(AccessRights::S), Check::LdtrSystem, LDTR.rights)?;
        self.require(rights.has(AccessRights::P), Check::LdtrNotPresent, LDTR.rights)?;
        self.require(rights.0 & AccessRights::RESERVED == 0, Check::LdtrReserved, LDTR.rights)?;
        self.require(self.granularity_suits(&LDTR), Check::LdtrGranularity, LDTR.rights)
    }
}
