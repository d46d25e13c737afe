//! The smallest 64-bit processor with VT-x that is of use: the instruction set every x86-64 system may expect, and the VT-x of its years,
//! without EPT and VPIDs.

use super::{FeatureSet, Model, VmxFeature, VmxFeatureSet, basic64};
use spec::x86::cpuid::Feature;

pub(super) const MODEL: Model = Model {
    name: "vmx64",
    description: "minimal 64-bit processor with VT-x (no EPT, no VPID): SSE3, no AVX, no PCID, no x2APIC",
    brand: "Vanderpool minimal processor with VT-x",
    features: FEATURES,
    vmx: VT_X,
    ..basic64::MODEL
};

const FEATURES: FeatureSet = basic64::MODEL.features.with(&[Feature::VMX]);

const VT_X: VmxFeatureSet = VmxFeatureSet::of(&[
    VmxFeature::VirtualNmis,
    VmxFeature::MsrBitmaps,
    VmxFeature::TprShadow,
    VmxFeature::ApicAccesses,
    VmxFeature::WbinvdExiting,
]);
