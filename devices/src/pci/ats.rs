//! Address translation services and page requests (PCI Express Base 5.0, chapter 10): what a function asks of the translation agent, the
//! remapping unit of the board, and what that sends to it.

use crate::ports::DmaFault;
use spec::vtd::page_requests::response;

/// What a request has besides an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The PASID.
    pub pasid: Option<u32>,
    /// With PASID: supervisor privilege is requested.
    pub privileged: bool,
    /// With PASID: a read is to execute.
    pub execute: bool,
    /// The address is a translated one.
    pub translated: bool,
}

/// A translation request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationRequest {
    /// PASID and privileges.
    pub attributes: Attributes,
    /// The untranslated address.
    pub address: u64,
    /// The function will not write: the translation need not allow it.
    pub no_write: bool,
}

/// A translation completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationCompletion {
    /// The translated address of the page.
    pub address: u64,
    /// log2 of the page's size.
    pub shift: u8,
    /// Reads are allowed.
    pub read: bool,
    /// Writes are allowed.
    pub write: bool,
    /// Execute requests are allowed.
    pub execute: bool,
}

/// A translation request that gets no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranslationError {
    /// Unsupported Request: the function is not to use ATS for this.
    Unsupported,
    /// Completer Abort.
    Aborted,
}

/// A page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// PASID and privileges.
    pub attributes: Attributes,
    /// The page's address.
    pub address: u64,
    /// It is to be read.
    pub read: bool,
    /// It is to be written.
    pub write: bool,
    /// The last request of its group, which is what is answered.
    pub last: bool,
    /// The group's index, 9 bits.
    pub group: u16,
}

/// The code of a page group response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCode {
    /// Every page of the group is there, or is worth another try.
    Success,
    /// Some page cannot be had.
    Invalid,
    /// Page requests do not work.
    Failure,
}

impl ResponseCode {
    /// The code with this number; those that are reserved mean failure.
    #[must_use]
    pub fn of(number: u8) -> Self {
        match number {
            response::SUCCESS => Self::Success,
            response::INVALID => Self::Invalid,
            _ => Self::Failure,
        }
    }
}

/// What the translation agent sends to a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Forget the translations of some addresses, and say when no request uses them any more.
    Invalidate {
        /// What the completion names.
        tag: u8,
        /// The PASID whose translations are meant, or those without PASID.
        pasid: Option<u32>,
        /// Those of all PASIDs instead.
        global: bool,
        /// The first address.
        first: u64,
        /// The last address.
        last: u64,
    },
    /// The answer to a group of page requests.
    Response {
        /// The PASID of the requests.
        pasid: Option<u32>,
        /// The group's index.
        group: u16,
        /// What became of it.
        code: ResponseCode,
    },
}

/// The translation agent as one function sees it. No call re-enters the function: messages for it come later.
pub trait TranslationAgent: Send {
    /// Reads memory.
    ///
    /// # Errors
    /// When there is none, or the request is blocked.
    fn read(&self, attributes: Attributes, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault>;
    /// Writes memory.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn write(&self, attributes: Attributes, address: u64, data: &[u8]) -> Result<(), DmaFault>;
    /// Asks for a translation.
    ///
    /// # Errors
    /// When there is none to be had, which is not the same as one that allows nothing.
    fn translate(&self, request: &TranslationRequest) -> Result<TranslationCompletion, TranslationError>;
    /// Asks for a page.
    fn request_page(&self, request: &PageRequest);
    /// Says that the invalidation with this tag is carried out.
    fn invalidated(&self, tag: u8);
}
