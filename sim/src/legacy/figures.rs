//! What is known of the replaced service, measured on it with its own settings; and how near the model must come.

/// One line of the table: a day with so many users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Users.
    pub users: u32,
    /// Fan-outs that ran, of [`TICKS_A_DAY`].
    pub fan_outs: u64,
    /// The median of the gaps between two syncs of one user, in minutes.
    pub gap_p50_min: usize,
    /// 95 % of those gaps are at most so long, in minutes.
    pub gap_p95_min: usize,
    /// Jobs of fan-outs whose user already had one waiting, in percent.
    pub duplicates_percent: u64,
}

const fn figure(
    users: u32,
    fan_outs: u64,
    gap_p50_min: usize,
    gap_p95_min: usize,
    duplicates_percent: u64,
) -> Figure {
    Figure {
        users,
        fan_outs,
        gap_p50_min,
        gap_p95_min,
        duplicates_percent,
    }
}

/// Ticks of a day.
pub const TICKS_A_DAY: u64 = 96;

/// The table, 24 hours each. What was said of "20 to 200" users stands here for both ends and the middle.
pub const FIGURES: [Figure; 6] = [
    figure(20, TICKS_A_DAY, 30, 31, 0),
    figure(100, TICKS_A_DAY, 30, 31, 0),
    figure(200, TICKS_A_DAY, 30, 31, 0),
    figure(500, 41, 45, 75, 13),
    figure(1_000, 18, 85, 171, 37),
    figure(3_000, 6, 285, 301, 64),
];

/// Each sync fails by so many in a million: 25 of 100 users were lost after a day, 86 after seven.
pub const FAILURES_PPM: u32 = 5_000;
/// Of [`LOST_OF`] users, after a day with [`FAILURES_PPM`].
pub const LOST_A_DAY: u64 = 25;
/// Of [`LOST_OF`] users, after seven days with [`FAILURES_PPM`].
pub const LOST_SEVEN_DAYS: u64 = 86;
/// Of [`LOST_OF`] users, after Google answered 429 for 10 minutes.
pub const LOST_AFTER_429: u64 = 99;
/// Users in the runs with failures.
pub const LOST_OF: u32 = 100;

/// The number of fan-outs may differ by so many: one more or less at the ends of the day.
pub const FAN_OUTS_TOLERANCE: u64 = 1;
/// Gaps may differ by so much, in percent of the figure, rounded up to a minute.
pub const GAP_TOLERANCE_PERCENT: usize = 10;
/// The share of duplicates may differ by so many percentage points. A fan-out that begins a minute later in a queue that
/// is full finds other users waiting, so this figure swings from seed to seed, the more the fewer fan-outs there are.
pub const DUPLICATES_TOLERANCE_POINTS: u64 = 15;
/// The users lost to chance may differ by so many of 100: two and a half standard deviations of the binomial.
pub const LOST_TOLERANCE: u64 = 11;
/// The users lost to 429 may differ by so many: this is no chance.
pub const LOST_AFTER_429_TOLERANCE: u64 = 1;

/// Whether a gap is near the figure.
#[must_use]
pub fn gap_is_near(measured_min: usize, figure_min: usize) -> bool {
    let tolerance = (figure_min * GAP_TOLERANCE_PERCENT).div_ceil(100);
    measured_min.abs_diff(figure_min) <= tolerance
}
