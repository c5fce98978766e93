//! When it was, and how long it took.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A moment as RFC 3339 in UTC, to the second: `2026-11-24T16:06:00Z`. Moments before 1970 read as 1970.
pub fn rfc3339(moment: SystemTime) -> String {
    let seconds = moment.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the proleptic Gregorian calendar, `days` after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years that begin in March put the leap day last; 400 of them have 146,097 days; their months repeat 153 days in five.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    (era * 400 + year + u64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 }, day)
}

/// Time that some work took.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spent {
    /// Seconds of all cores that this process used; `None` where the system does not tell (only Linux does yet).
    pub cpu_seconds: Option<f64>,
    /// Seconds on the clock.
    pub wall_seconds: f64,
}

/// Measures [`Spent`].
#[derive(Debug, Clone)]
pub struct Stopwatch {
    started: Instant,
    cpu: Option<f64>,
}

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self { started: Instant::now(), cpu: process_cpu_seconds() }
    }

    /// What was spent since the start or the last lap; the next lap begins.
    pub fn lap(&mut self) -> Spent {
        let before = std::mem::replace(self, Self::start());
        Spent {
            cpu_seconds: self.cpu.zip(before.cpu).map(|(now, then)| now - then),
            wall_seconds: (self.started - before.started).as_secs_f64(),
        }
    }
}

/// User and system time of all threads of this process, dead ones included.
fn process_cpu_seconds() -> Option<f64> {
    parse_stat(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Fields 14 and 15 of Linux' `/proc/PID/stat`; field 2 is a file name in parentheses and may hold anything.
fn parse_stat(text: &str) -> Option<f64> {
    const TICKS_PER_SECOND: f64 = 100.0; // USER_HZ: part of Linux' user interface, whatever the kernel's own rate.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments_are_those_of_the_calendar() {
        // date -u -d @SECONDS +%FT%TZ
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_795_536_360, "2026-11-24T16:06:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn days_follow_each_other() {
        let next = |(year, month, day): (u64, u64, u64)| {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize - 1];
            match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == length => (year, month + 1, 1),
                (_, day) => (year, month, day + 1),
            }
        };
        let mut today = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(civil(days), today);
            today = next(today);
        }
    }

    #[test]
    fn cpu_time_is_read_behind_any_program_name() {
        assert_eq!(parse_stat("7 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 250 150 0 0 20"), Some(4.0));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn a_stopwatch_counts_each_lap_once() {
        let mut watch = Stopwatch::start();
        std::thread::sleep(Duration::from_millis(20));
        let (first, second) = (watch.lap(), watch.lap());
        assert!(first.wall_seconds >= 0.02 && second.wall_seconds < first.wall_seconds);
        assert_eq!(first.cpu_seconds.is_some(), cfg!(target_os = "linux"));
    }
}
