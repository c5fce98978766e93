//! The commit that this program was built from.

use antiphon_lab::Revision;

/// What `build.rs` found out when the program was built: the same however the program is called. `None` if the sources were in no
/// repository.
pub(crate) fn revision() -> Option<Revision> {
    Revision::parse(option_env!("ANTIPHON_REVISION")?)
}
