//! `antiphon runs`: all runs and how they stand.

use antiphon_core::{Error, Place, Result};
use antiphon_lab::{Filter, Listing, UnknownKey};

use super::hints::settings_meant;
use super::{Ending, RunsFolder};
use crate::output::{columns, print, tell};

/// List the runs: how each stands, its figures, and the settings in which they differ
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// List only runs of which this holds: a setting (its dotted key, or the end of it), `name`, `status`, `seed`, `version`,
    /// `device` or `threads`; `*` stands for any characters. Of several for one key any will do
    #[arg(long = "where", value_name = "KEY=VALUE", value_parser = Filter::parse)]
    filters: Vec<Filter>,
    /// Order them by a setting, a figure (`bleu`, `test.bleu`), `started` or `minutes`, the smallest first
    #[arg(long, value_name = "KEY")]
    sort: Option<String>,
    /// Write a JSON document with all settings, records and figures
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: RunsFolder,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let mut listing = Listing::read(self.folder.runs().list()?);
        let there_are = !listing.is_empty();
        listing.filter(&self.filters).map_err(|key| unknown(&key, "setting").at(Place::text("--where")))?;
        if let Some(key) = &self.sort {
            listing.sort(key).map_err(|key| unknown(&key, "setting or a figure").at(Place::text("--sort")))?;
        }
        if self.json {
            print(&format!("{:#}\n", listing.json()?))?;
            return Ok(Ending::Done);
        }
        if listing.is_empty() {
            let none = if there_are { "no such runs" } else { "no runs" };
            print(&format!("{}: {none}\n", self.folder.runs_dir.display()))?;
            return Ok(Ending::Done);
        }
        let (rows, too_many) = listing.table();
        print(&columns(&rows))?;
        if let Some(count) = too_many {
            tell(&format!(
                "they differ in {count} settings, too many for columns: --where narrows them down, --json has all"
            ));
        }
        Ok(Ending::Done)
    }
}

/// An error about a key that no run has, with the setting that may be meant.
fn unknown(UnknownKey(key): &UnknownKey, what: &str) -> Error {
    let meant = match &settings_meant(key)[..] {
        [meant] => format!("; did you mean `{meant}`?"),
        _ => String::new(),
    };
    Error::new(format!("no run has a {what} `{key}`{meant}"))
}
