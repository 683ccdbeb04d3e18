use proptest::prelude::*;

use super::*;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_ms(ms)
}

const TEN_A_MINUTE: Limit = Limit {
    count: 10,
    window_ms: 60_000,
};
const THOUSAND_IN_64_SECONDS: Limit = Limit {
    count: 1_000,
    window_ms: 64_000,
};

#[test]
fn the_boundary_of_a_minute_lets_nothing_extra_through() {
    let mut window = SlidingWindow::new();
    assert_eq!(window.available(at(59_000), &TEN_A_MINUTE), 10);
    window.record(at(59_000), 10, &TEN_A_MINUTE);
    assert_eq!(window.available(at(61_000), &TEN_A_MINUTE), 0);
    assert_eq!(window.available(at(118_999), &TEN_A_MINUTE), 0);
    assert_eq!(window.opens_at(at(61_000), &TEN_A_MINUTE, 1), at(119_000));
    assert_eq!(window.available(at(119_000), &TEN_A_MINUTE), 10);
}

#[test]
fn opens_when_enough_have_left() {
    let mut window = SlidingWindow::new();
    window.record(at(0), 4, &TEN_A_MINUTE);
    window.record(at(5_000), 6, &TEN_A_MINUTE);
    assert_eq!(window.opens_at(at(6_000), &TEN_A_MINUTE, 0), at(6_000));
    assert_eq!(window.opens_at(at(6_000), &TEN_A_MINUTE, 4), at(60_000));
    assert_eq!(window.opens_at(at(6_000), &TEN_A_MINUTE, 5), at(65_000));
    assert_eq!(window.opens_at(at(6_000), &TEN_A_MINUTE, 99), at(65_000));
    assert_eq!(window.opens_at(at(70_000), &TEN_A_MINUTE, 10), at(70_000));
}

#[test]
fn a_coarse_bucket_counts_until_its_end_has_left() {
    let mut window = SlidingWindow::new();
    assert_eq!(THOUSAND_IN_64_SECONDS.granularity_ms(), 1_000);
    window.record(at(1_001), 400, &THOUSAND_IN_64_SECONDS);
    window.record(at(1_998), 600, &THOUSAND_IN_64_SECONDS);
    assert!(window.buckets().eq([(at(1_999), 1_000)]));
    assert_eq!(window.available(at(65_998), &THOUSAND_IN_64_SECONDS), 0);
    assert_eq!(window.available(at(65_999), &THOUSAND_IN_64_SECONDS), 1_000);
    window.record(at(-1), 1, &THOUSAND_IN_64_SECONDS);
    assert!(window.buckets().eq([(at(-1), 1_001)]));
}

#[test]
fn the_granularity_is_a_64th_of_the_window_of_a_limit_above_64() {
    for (count, window_ms, granularity_ms) in [
        (64, DAY_MS, 1),
        (65, 1, 1),
        (65, 64, 1),
        (65, 65, 2),
        (LIMIT_COUNT_MAX, DAY_MS, 1_350_000),
    ] {
        assert_eq!(Limit { count, window_ms }.granularity_ms(), granularity_ms);
    }
}

#[test]
fn a_log_is_what_its_buckets_say() {
    let mut window = SlidingWindow::new();
    for second in 0..10 {
        window.record(at(second * 1_000), 3, &THOUSAND_IN_64_SECONDS);
    }
    assert_eq!(window.buckets().len(), 10);
    let buckets: Vec<_> = window.buckets().collect();
    assert_eq!(SlidingWindow::from_buckets(buckets), Some(window));
    let many = |count: usize| (0..).map(|last| (at(last), 1)).take(count);
    assert!(SlidingWindow::from_buckets(many(BUCKETS_MAX)).is_some());
    assert_eq!(SlidingWindow::from_buckets(many(BUCKETS_MAX + 1)), None);
    assert_eq!(SlidingWindow::from_buckets([(at(1), 0)]), None);
    assert_eq!(SlidingWindow::from_buckets([(at(1), 1), (at(1), 1)]), None);
}

#[test]
fn nothing_recorded_changes_nothing() {
    let mut window = SlidingWindow::new();
    window.record(at(5_000), 3, &TEN_A_MINUTE);
    let before = window.clone();
    window.record(at(0), 0, &TEN_A_MINUTE);
    assert_eq!(window, before);
    window.restamp(at(5_000));
    assert_eq!(window, before);
}

#[test]
fn a_changed_limit_holds_at_once_both_ways() {
    let mut window = SlidingWindow::new();
    window.record(at(0), 10, &TEN_A_MINUTE);
    let lower = Limit {
        count: 3,
        ..TEN_A_MINUTE
    };
    let higher = Limit {
        count: 25,
        ..TEN_A_MINUTE
    };
    assert_eq!(window.available(at(1), &lower), 0);
    assert_eq!(window.available(at(2), &higher), 15);
    assert_eq!(window.available(at(3), &TEN_A_MINUTE), 0);
    let shorter = Limit {
        count: 10,
        window_ms: 10,
    };
    assert_eq!(window.available(at(10), &shorter), 10);
}

#[test]
fn a_lengthened_window_finds_the_starts_it_now_covers() {
    let second = Limit {
        count: 10,
        window_ms: 1_000,
    };
    let mut window = SlidingWindow::new();
    for number in 0..30 {
        assert_eq!(window.available(at(number * 1_000), &second), 10);
        window.record(at(number * 1_000), 10, &second);
    }
    assert_eq!(window.available(at(30_000), &second), 10);
    assert_eq!(window.available(at(30_000), &TEN_A_MINUTE), 0);
    assert_eq!(window.opens_at(at(30_000), &TEN_A_MINUTE, 1), at(89_000));
}

#[test]
fn a_clock_that_stepped_back_a_day_shuts_for_one_window_only() {
    let mut window = SlidingWindow::new();
    let day_ms = i64::try_from(DAY_MS).unwrap();
    window.record(at(day_ms), 10, &TEN_A_MINUTE);
    assert_eq!(window.available(at(0), &TEN_A_MINUTE), 0);
    window.restamp(at(0));
    assert_eq!(window.available(at(0), &TEN_A_MINUTE), 0);
    assert_eq!(window.opens_at(at(0), &TEN_A_MINUTE, 10), at(60_000));
    assert_eq!(window.available(at(60_000), &TEN_A_MINUTE), 10);
}

#[test]
fn what_is_among_the_newest_count_is_remembered_for_a_longer_window() {
    let limit = |window_ms| Limit {
        count: 6,
        window_ms,
    };
    let mut window = SlidingWindow::new();
    window.record(at(0), 1, &limit(1));
    window.record(at(2), 5, &limit(1));
    assert_eq!(window.available(at(2), &limit(3)), 0);
    window.record(at(2), 1, &limit(1));
    assert!(window.buckets().eq([(at(2), 6)]));
}

#[test]
fn a_coarse_window_with_starts_in_every_slot_joins_none_that_count() {
    let mut window = SlidingWindow::new();
    for half_seconds in 0..400 {
        let now_ms = half_seconds * 500;
        window.record(at(now_ms), 1, &THOUSAND_IN_64_SECONDS);
        let counting = (0..=half_seconds)
            .map(|start| start / 2 * 1_000 + 999)
            .filter(|slot_end_ms| slot_end_ms + 64_000 > now_ms);
        let available = window.available(at(now_ms), &THOUSAND_IN_64_SECONDS);
        assert_eq!(1_000 - available as usize, counting.count());
    }
    assert_eq!(window.buckets().len(), BUCKETS_MAX);
}

#[test]
fn what_is_joined_counts_longer_but_is_not_lost() {
    let mut window = SlidingWindow::new();
    for number in 0..1_000 {
        window.record(at(number), 1, &TEN_A_MINUTE);
    }
    assert_eq!(window.buckets().len(), BUCKETS_MAX);
    let joined = 1_000 - u32::try_from(BUCKETS_MAX).unwrap() + 1;
    assert_eq!(window.buckets().next().unwrap().1, joined);
    assert_eq!(window.available(at(60_998), &TEN_A_MINUTE), 9);
    assert_eq!(window.available(at(60_999), &TEN_A_MINUTE), 10);
}

#[test]
fn starts_older_than_the_longest_window_are_forgotten() {
    let mut window = SlidingWindow::new();
    window.record(at(0), 1, &TEN_A_MINUTE);
    window.record(at(60_000), 1, &TEN_A_MINUTE);
    assert_eq!(window.buckets().len(), 2);
    window.record(at(DAY_MS.cast_signed()), 1, &TEN_A_MINUTE);
    assert_eq!(window.buckets().len(), 2);
}

#[test]
fn bad_limits_are_refused() {
    assert_eq!(Limit::default().validate(), Ok(()));
    for (count, window_ms) in [(0, 1), (LIMIT_COUNT_MAX + 1, 1), (1, 0), (1, DAY_MS + 1)] {
        assert!(Limit { count, window_ms }.validate().is_err());
    }
}

#[test]
fn the_ramp_opens_one_after_another() {
    let limited = Some(&TEN_A_MINUTE);
    assert_eq!(ramp_allowance(limited, 0), Some(1));
    assert_eq!(ramp_allowance(limited, 6_000), Some(2));
    assert_eq!(ramp_allowance(limited, 59_999), Some(10));
    assert_eq!(ramp_allowance(limited, 60_000), None);
    assert_eq!(ramp_allowance(None, 0), Some(10));
    assert_eq!(ramp_allowance(None, 999), Some(10));
    assert_eq!(ramp_allowance(None, 3_000), Some(80));
    assert_eq!(ramp_allowance(None, 14_999), Some(163_840));
    assert_eq!(ramp_allowance(None, 15_000), None);
    assert_eq!(ramp_opens_after_ms(None, u64::MAX), RAMP_UNLIMITED_MS);
}

#[derive(Clone, Debug)]
enum Step {
    Forward(u64),
    Back(u64),
    Change(Limit),
    Start(u32),
    Restamp,
}

/// As many exact ones as coarse ones.
fn any_limit() -> impl Strategy<Value = Limit> {
    let count = prop_oneof![1_u32..12, EXACT_COUNT_MAX - 1..1_000];
    let window_ms = prop_oneof![1_u64..300, 300_u64..6_000];
    (count, window_ms).prop_map(|(count, window_ms)| Limit { count, window_ms })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![0_u64..3, 0_u64..120].prop_map(Step::Forward),
        1 => (0_u64..500).prop_map(Step::Back),
        1 => any_limit().prop_map(Step::Change),
        5 => prop_oneof![1_u32..6, 1_u32..40].prop_map(Step::Start),
        // As a queue does that has seen the clock step back.
        1 => Just(Step::Restamp),
    ]
}

proptest! {
    // Time that really passed only grows; the clock falls behind it by each step back. Counted in real time,
    // every sliding window holds under the limit of its last start. A longer window together with a higher
    // count is left out: for that the log remembers too little (see the head of this file).
    #[test]
    fn no_sliding_window_is_ever_exceeded(
        first in any_limit(), steps in prop::collection::vec(any_step(), 1..300), counts_fixed: bool,
    ) {
        let mut limit = first;
        let (mut real, mut clock) = (0_i64, 0_i64);
        let mut window = SlidingWindow::new();
        let mut starts: Vec<(i64, u32)> = Vec::new();
        for step in steps {
            match step {
                Step::Forward(ms) => { real += ms.cast_signed(); clock += ms.cast_signed(); }
                Step::Back(ms) => clock -= ms.cast_signed(),
                Step::Change(to) if counts_fixed => limit.window_ms = to.window_ms,
                Step::Change(to) => limit.count = to.count,
                Step::Restamp => window.restamp(at(clock)),
                Step::Start(wanted) => {
                    let given = window.available(at(clock), &limit).min(wanted);
                    window.record(at(clock), given, &limit);
                    starts.push((real, given));
                    let window_ms = limit.window_ms.cast_signed();
                    let inside = starts.iter().filter(|(start, _)| real - start < window_ms);
                    let inside: u32 = inside.map(|(_, starts)| starts).sum();
                    prop_assert!(given == 0 || inside <= limit.count, "{inside} starts under {limit:?}");
                }
            }
            let again = SlidingWindow::from_buckets(window.buckets());
            prop_assert_eq!(again.as_ref(), Some(&window));
        }
        // Never shut for ever: one window later all of it is free.
        window.restamp(at(clock));
        prop_assert_eq!(window.available(at(clock).plus_ms(limit.window_ms), &limit), limit.count);
    }

    // Held against a log of every start.
    #[test]
    fn opens_when_it_says_and_late_by_less_than_the_granularity(
        limit in any_limit(), wanted in 1_u32..1_000,
        gaps in prop::collection::vec((prop_oneof![0_u64..3, 0_u64..120], prop_oneof![1_u32..3, 1_u32..12]), 0..500),
    ) {
        let mut window = SlidingWindow::new();
        let mut exact: Vec<(Timestamp, u32)> = Vec::new();
        let mut now = at(-5_000);
        for (gap_ms, starts) in gaps {
            now = now.plus_ms(gap_ms);
            let given = window.available(now, &limit).min(starts);
            window.record(now, given, &limit);
            exact.push((now, given));
        }
        let wanted = wanted.min(limit.count);
        let opens_at = window.opens_at(now, &limit, wanted);
        prop_assert!(opens_at >= now);
        prop_assert!(opens_at == now || window.available(opens_at.minus_ms(1), &limit) < wanted);
        prop_assert!(window.available(opens_at, &limit) >= wanted);

        let fits_exactly = |at: Timestamp| {
            let counting = exact.iter().filter(|(start, _)| start.plus_ms(limit.window_ms) > at);
            counting.map(|(_, starts)| starts).sum::<u32>() + wanted <= limit.count
        };
        prop_assert!(fits_exactly(opens_at));
        prop_assert!(opens_at == now || !fits_exactly(opens_at.minus_ms(limit.granularity_ms())));
    }

    #[test]
    fn what_is_said_of_the_opening_holds_after_any_history(
        recorded in prop::collection::vec((-50_i64..200, 1_u32..40, any_limit()), 0..300),
        limit in any_limit(), wanted in 1_u32..1_000,
    ) {
        let mut window = SlidingWindow::new();
        let mut now = at(-5_000);
        for (gap_ms, starts, limit) in recorded {
            now = at(now.as_ms() + gap_ms);
            window.record(now, starts, &limit);
            prop_assert!(window.buckets().len() <= BUCKETS_MAX);
        }
        let wanted = wanted.min(limit.count);
        let opens_at = window.opens_at(now, &limit, wanted);
        prop_assert!(opens_at == now || window.available(opens_at.minus_ms(1), &limit) < wanted);
        prop_assert!(window.available(opens_at, &limit) >= wanted);
    }

    #[test]
    fn the_ramp_and_its_inverse_agree(
        limit in prop::option::of((1_u32..2_000, 1_u64..100_000).prop_map(|(count, window_ms)| Limit { count, window_ms })),
        starts in 0_u64..200_000,
    ) {
        let allows = |elapsed_ms: u64| ramp_allowance(limit.as_ref(), elapsed_ms).is_none_or(|allowed| allowed > starts);
        let after_ms = ramp_opens_after_ms(limit.as_ref(), starts);
        prop_assert!(allows(after_ms));
        prop_assert!(after_ms == 0 || !allows(after_ms - 1));
    }
}
