//! Everything that Vanderpool implements, on a server processor of the Sapphire Rapids class.
//!
//! Left out against a real one: what the Ice Lake model leaves out, and AMX, user interrupts, key locker, data streaming. It has
//! features that came with later processors.

use super::{FeatureSet, Model, VmxFeature, VmxFeatureSet, icelake_server};
use spec::x86::cpuid::Feature::*;

pub(super) const MODEL: Model = Model {
    name: "full",
    description: "64-bit server processor of the Sapphire Rapids class with all of VT-x that is implemented",
    brand: "Intel(R) Xeon(R) Processor (Full-Vanderpool)",
    signature: 0x0008_06f8,
    physical_bits: 52,
    features: FEATURES,
    vmx: VT_X,
    microcode: 0x2b00_05b1,
    ..icelake_server::MODEL
};

/// What came after the Ice Lake server.
const FEATURES: FeatureSet =
    icelake_server::MODEL.features.with(&[PDCM, CET_SS, CET_IBT, CET_SSS, PKS, WAITPKG, BUS_LOCK_DETECT]);

/// What the Ice Lake server does not have.
const VT_X: VmxFeatureSet = icelake_server::MODEL.vmx.with(&[
    VmxFeature::LoadPerfGlobalCtrl,
    VmxFeature::LoadCet,
    VmxFeature::LoadPkrs,
    VmxFeature::LoadSpecCtrl,
    VmxFeature::BusyShadowStack,
    VmxFeature::AnyErrorCode,
    VmxFeature::IpiVirtualization,
    VmxFeature::NotifyExiting,
    VmxFeature::BusLockExiting,
    VmxFeature::VirtualizeSpecCtrl,
    VmxFeature::Ept5Level,
    VmxFeature::EptShadowStack,
    VmxFeature::SubPageWrite,
    VmxFeature::Hlat,
    VmxFeature::PagingWrite,
    VmxFeature::GuestPagingVerification,
]);
