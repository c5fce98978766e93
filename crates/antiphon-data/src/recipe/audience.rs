//! Who hears what a preparation does.

/// Who hears what happens.
pub trait Audience {
    /// A line that stays.
    fn line(&mut self, line: &str);

    /// How far a transfer has come. Called often.
    fn progress(&mut self, progress: &Progress<'_>);

    /// The transfer that made progress has ended, well or badly.
    fn progress_ends(&mut self);
}

/// How far a transfer has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// What is transferred.
    pub name: &'a str,
    /// Bytes that are there.
    pub done: u64,
    /// Bytes that were there before this transfer began.
    pub before: u64,
    /// Bytes in all, if the server says so.
    pub total: Option<u64>,
    /// How long this transfer has taken.
    pub elapsed: std::time::Duration,
}
