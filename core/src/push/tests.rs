//! The life of a calendar's channels, step by step.

use super::*;

const NOW: Timestamp = Timestamp::from_ms(1_793_600_000_000);

fn made(now: Timestamp, life_ms: u64) -> Watched {
    Watched {
        resource: "r".to_owned(),
        expires_at: now.plus_ms(life_ms),
    }
}

#[test]
fn a_channel_is_renewed_before_its_end_and_the_old_one_stopped_after() {
    let settings = PushSettings::default();
    let mut watch = Watch::default();
    assert_eq!(watch.wish(NOW, Some(&settings)), Some(Wish::Watch));
    assert!(!watch.outlives_poll(NOW, &settings));
    watch.watched(NOW, &settings, "a".to_owned(), made(NOW, settings.life_ms));
    assert!(watch.outlives_poll(NOW, &settings));
    let renew_at = NOW.plus_ms(settings.life_ms - settings.renew_before_ms());
    assert_eq!(watch.wish(renew_at.minus_ms(1), Some(&settings)), None);
    assert_eq!(watch.wish(renew_at, Some(&settings)), Some(Wish::Watch));
    // The old one is still there when the new one comes: no change falls between.
    watch.watched(
        renew_at,
        &settings,
        "b".to_owned(),
        made(renew_at, settings.life_ms),
    );
    assert_eq!(watch.channels.len(), 2);
    let wish = watch.wish(renew_at, Some(&settings));
    assert!(matches!(wish, Some(Wish::Stop(channel)) if channel.id == "a"));
    watch.stopped("a");
    assert_eq!(watch.wish(renew_at, Some(&settings)), None);
    // Two polls fit between the time of renewal and the end.
    assert!(settings.renew_before_ms() > 2 * settings.poll_ms);
}

#[test]
fn an_ended_channel_is_forgotten_and_the_pace_is_the_usual_one() {
    let settings = PushSettings::default();
    let mut watch = Watch::default();
    watch.watched(NOW, &settings, "a".to_owned(), made(NOW, settings.life_ms));
    let end = NOW.plus_ms(settings.life_ms);
    assert!(!watch.outlives_poll(end.minus_ms(settings.poll_ms), &settings));
    watch.tidy(end.minus_ms(1));
    assert_eq!(watch.channels.len(), 1);
    watch.tidy(end);
    assert!(watch.is_empty());
}

#[test]
fn what_was_refused_is_not_asked_at_once_again() {
    let settings = PushSettings::default();
    for (failure, pause_ms) in [
        (Failure::transient("503"), REFUSED_SOON_MS),
        (
            Failure::permanent("pushNotSupportedForRequestedResource"),
            REFUSED_LONG_MS,
        ),
        (
            Failure::new(FailureKind::Unauthorized, "webhookUrlUnauthorized"),
            REFUSED_SOON_MS,
        ),
        (
            Failure::new(
                FailureKind::Limited {
                    scope: crate::failure::LimitScope::User,
                    retry_after_ms: Some(2 * REFUSED_SOON_MS),
                },
                "429",
            ),
            2 * REFUSED_SOON_MS,
        ),
    ] {
        let mut watch = Watch::default();
        watch.refused(NOW, &failure);
        watch.tidy(NOW.plus_ms(pause_ms - 1));
        assert_eq!(
            watch.wish(NOW.plus_ms(pause_ms - 1), Some(&settings)),
            None,
            "{failure}"
        );
        watch.tidy(NOW.plus_ms(pause_ms));
        assert_eq!(
            watch.wish(NOW.plus_ms(pause_ms), Some(&settings)),
            Some(Wish::Watch)
        );
    }
}

#[test]
fn a_life_that_is_too_short_is_not_renewed_for_ever() {
    let settings = PushSettings::default();
    let mut watch = Watch::default();
    let mut asked = 0;
    for minute in 0..60 {
        let now = NOW.plus_ms(minute * MINUTE_MS);
        watch.tidy(now);
        if watch.wish(now, Some(&settings)) == Some(Wish::Watch) {
            asked += 1;
            let id = format!("{minute}");
            watch.watched(now, &settings, id, made(now, HOUR_MS));
        }
        assert!(!watch.outlives_poll(now, &settings));
    }
    assert_eq!(asked, 1);
}

#[test]
fn without_settings_every_channel_is_stopped() {
    let settings = PushSettings::default();
    let mut watch = Watch::default();
    for id in ["a", "b"] {
        watch.watched(NOW, &settings, id.to_owned(), made(NOW, settings.life_ms));
    }
    let mut stopped = Vec::new();
    while let Some(Wish::Stop(channel)) = watch.wish(NOW, None) {
        watch.stopped(&channel.id);
        stopped.push(channel.id);
    }
    assert_eq!(stopped, ["a", "b"]);
    assert_eq!(watch.wish(NOW, None), None);
}
