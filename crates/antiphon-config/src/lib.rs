//! Reading TOML experiments: layers, provenance and exact errors.
//!
//! A [`Tree`] is what several layers say together. Lowest first, they are:
//!
//! 1. the files that a file `extends` (and those that they extend), each once, in the order in which they are named;
//! 2. the file itself;
//! 3. the environment: `ANTIPHON__MODEL__ENCODER__HIDDEN=64` sets `model.encoder.hidden`;
//! 4. assignments: `--set model.encoder.hidden=64`.
//!
//! Tables merge key by key; everything else, lists included, is replaced whole. Two rules drop what a table inherits:
//!
//! - `replace = true` in a table drops everything that lower layers put there, and vanishes itself;
//! - a `kind` other than the inherited one drops what lower layers put beside it and only the other kind knows, in the
//!   tables below too: `--set model.encoder.kind=gru` keeps `hidden`, and `--set model.decoder.attention.kind=dot` needs
//!   no further cleaning up. The layers do not know what a kind knows, so they only mark such values as carried over;
//!   which of them stay is decided when a type looks at the tree ([`Tree::read`], [`Tree::seen_by`]).
//!   All else is checked in values carried over as in any others; a key that no kind of its table has is still a mistake.
//!
//! A table that names no `kind` is of the kind of its default, if its setting has one, as if a layer below all others said
//! so. And what an assignment makes of `name=1_1` depends on the setting: where only text fits, it is the text as typed.
//!
//! [`Tree::read`] checks the tree against the schema of a type, reports **all** mistakes with their places, and only then
//! lets serde build the value. The same schema gives the [`reference`](reference()) page. What the keys mean is not known here.
//!
//! ```
//! use antiphon_config::Tree;
//! #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Encoder {
//!     #[schemars(range(min = 1))]
//!     hidden: u32,
//! }
//! # let folder = std::env::temp_dir().join(format!("antiphon-config-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).unwrap();
//! # let file = folder.join("run.toml");
//! std::fs::write(&file, "hiden = 64").unwrap();
//! let error = Tree::load(&file, &[]).unwrap().read::<Encoder>().unwrap_err();
//! assert_eq!(error.problems[0].to_string(), "hiden (line 1): no such key; did you mean `hidden`?");
//! # std::fs::remove_dir_all(&folder).unwrap();
//! ```

#![forbid(unsafe_code)]

mod assign;
mod check;
mod dotted;
mod files;
mod keys;
mod layer;
mod origin;
mod reference;
mod schema;
mod tree;
mod wording;
mod write;

pub use keys::{keys, keys_called, nearest_key};
pub use origin::Origin;
pub use reference::reference;
pub use tree::Tree;
pub use write::to_toml;
