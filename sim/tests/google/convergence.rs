//! Whatever changes, whenever, and however the pages fall: who follows the tokens ends with the truth.

use kalends_core::rng::{substream, uniform};
use kalends_core::time::MINUTE_MS;
use proptest::prelude::*;

use crate::client::{ADA, Client, EPOCH, settings, truth};
use kalends_sim::google::GoogleEmulator;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn following_tokens_ends_with_the_truth(
        seed in any::<u64>(),
        events in 0_u32..120,
        page in 1_usize..40,
        empty_every in 0_u32..5,
        short_every in 0_u32..4,
        changes_max in 0_u64..6,
    ) {
        let mut settings = settings(2, events);
        settings.seed = seed;
        settings.empty_page_every = empty_every;
        settings.short_page_every = short_every;
        let mut emulator = GoogleEmulator::new(settings);
        let mut rng = substream(seed, "convergence");
        let mut client = Client::new(page);
        let mut now = EPOCH;
        for _ in 0..4 {
            now = now.plus_ms(MINUTE_MS);
            // Bounded: against an endless stream of changes a reader of small pages never reaches the end.
            let mut left = 40;
            client.sync(&mut emulator, now, |emulator| {
                // Changes fall between pages, too; some of them in the same millisecond.
                for _ in 0..uniform(&mut rng, changes_max).min(left) {
                    left -= 1;
                    let change = emulator.random_change(now, ADA, &mut rng).unwrap();
                    emulator.apply(now, ADA, &change).unwrap();
                }
            });
        }
        // The last increments bring what changed during the pass before; then nothing is left to tell.
        client.sync(&mut emulator, now, |_| ());
        prop_assert_eq!(client.truth(), truth(&emulator, ADA));
        let token = client.sync_token.clone();
        let news = client.sync(&mut emulator, now, |_| ());
        prop_assert!(news.is_empty());
        prop_assert_eq!(&client.sync_token, &token, "an unchanged calendar keeps its token");
        let mut fresh = Client::new(page);
        fresh.sync(&mut emulator, now, |_| ());
        prop_assert_eq!(fresh.truth(), truth(&emulator, ADA));
        prop_assert_eq!(&fresh.sync_token, &token);
    }
}

#[test]
fn all_kinds_of_change_come_by_chance() {
    let mut emulator = GoogleEmulator::new(settings(1, 200));
    let mut rng = substream(3, "kinds");
    let mut kinds = std::collections::BTreeSet::new();
    for step in 0..600 {
        let now = EPOCH.plus_ms(step * MINUTE_MS);
        let change = emulator.random_change(now, ADA, &mut rng).unwrap();
        let text = format!("{change:?}");
        kinds.insert(text.split([' ', '(', '{']).next().unwrap().to_owned());
        assert!(!emulator.apply(now, ADA, &change).unwrap().is_empty());
    }
    assert_eq!(kinds.len(), 11, "{kinds:?}");
}

#[test]
fn an_older_token_may_be_used_again() {
    let mut emulator = GoogleEmulator::new(settings(1, 50));
    let mut client = Client::new(10);
    client.sync(&mut emulator, EPOCH, |_| ());
    let old = client.sync_token.clone();
    let mut rng = substream(5, "replay");
    for _ in 0..20 {
        let change = emulator.random_change(EPOCH, ADA, &mut rng).unwrap();
        emulator.apply(EPOCH, ADA, &change).unwrap();
    }
    let first = client.sync(&mut emulator, EPOCH, |_| ());
    client.sync_token = old;
    let again = client.sync(&mut emulator, EPOCH, |_| ());
    assert_eq!(first, again);
    assert_eq!(client.truth(), truth(&emulator, ADA));
}
