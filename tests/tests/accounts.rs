//! The register of accounts: one contract, kept by the file and by Redis.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use kalends_adapters::accounts::{
    Account, Accounts, AccountsFile, Change, Expected, Grant, NOTE_MS, RedisAccounts,
};
use kalends_adapters::redis::RedisSettings;
use kalends_adapters::seal::{Keys, Purpose};
use kalends_adapters::secret::Secret;
use kalends_core::id::UserId;
use kalends_core::time::Timestamp;
use kalends_tests::redis_server::{RedisOptions, RedisServer};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn account(name: &str, token: Option<&str>) -> Account {
    let keys = Keys::parse(&Secret::new(KEY)).unwrap();
    let grant = token.map(|token| Grant {
        sealed: keys.seal(
            Purpose::GoogleRefreshToken,
            &user(name),
            &Secret::new(token),
        ),
        fingerprint: u64::MAX - 1,
        scopes: vec!["a".to_owned(), "b".to_owned()],
        account: Some("x@example.com".to_owned()),
        connected_at: Timestamp::from_ms(7),
    });
    Account {
        user: user(name),
        grant,
        graph_database: Some("ada.db".to_owned()),
        added_at: Timestamp::from_ms(5),
    }
}

async fn names(accounts: &dyn Accounts, after: Option<&str>, limit: u32) -> Vec<String> {
    let after = after.map(user);
    let page = accounts.page(after.as_ref(), limit).await.unwrap();
    page.into_iter()
        .map(|stored| stored.account.user.as_str().to_owned())
        .collect()
}

async fn changes(accounts: &dyn Accounts, after: u64, limit: u32) -> (Vec<String>, u64, u64) {
    let changes = accounts.changes(after, limit).await.unwrap();
    let last = changes.changes.last().map_or(0, |(revision, _)| *revision);
    let told = changes.changes.into_iter().map(|(_, change)| match change {
        Change::Kept(account) => format!("+{}", account.user),
        Change::Removed { user, purge: false } => format!("-{user}"),
        Change::Removed { user, purge: true } => format!("-{user}!"),
    });
    (told.collect(), last, changes.revision)
}

/// `other` is the same register, opened by another process.
async fn contract(accounts: &dyn Accounts, other: &dyn Accounts) {
    let at = Timestamp::from_ms;
    let ada = account("ada@example.com", Some("token"));
    assert_eq!(accounts.find(&ada.user).await.unwrap(), None);
    assert_eq!(accounts.changes(0, 9).await.unwrap().revision, 0);
    assert!(names(accounts, None, 9).await.is_empty());

    // Only what is expected is written over.
    assert!(accounts.put(ada.clone(), Expected::Absent).await.unwrap());
    assert!(!accounts.put(ada.clone(), Expected::Absent).await.unwrap());
    let stored = other.find(&ada.user).await.unwrap().unwrap();
    assert_eq!(stored.account, ada, "everything comes back");
    let changed = account("ada@example.com", None);
    let expected = Expected::Revision(stored.revision);
    assert!(other.put(changed.clone(), expected).await.unwrap());
    assert!(
        !other.put(ada.clone(), expected).await.unwrap(),
        "an old revision"
    );
    let stored = accounts.find(&ada.user).await.unwrap().unwrap();
    assert_eq!(stored.account, changed);

    // By name, page by page.
    for name in ["bob", "Zoë {}:* 100 %", "cleo"] {
        assert!(
            accounts
                .put(account(name, None), Expected::Absent)
                .await
                .unwrap()
        );
    }
    assert_eq!(
        names(accounts, None, 2).await,
        ["Zoë {}:* 100 %", "ada@example.com"]
    );
    assert_eq!(
        names(accounts, Some("ada@example.com"), 9).await,
        ["bob", "cleo"]
    );
    assert_eq!(names(accounts, Some("b"), 1).await, ["bob"]);

    // By change: each account once, the last change of it.
    let (told, seen, last) = changes(other, 0, 2).await;
    assert_eq!(told, ["+ada@example.com", "+bob"]);
    assert!(seen < last);
    let (told, seen, last) = changes(other, seen, 9).await;
    assert_eq!(told, ["+Zoë {}:* 100 %", "+cleo"]);
    assert_eq!(seen, last);
    assert_eq!(changes(other, seen, 9).await, (vec![], 0, last));

    // A removal leaves a note, with nothing of the grant.
    assert!(accounts.remove(&user("bob"), false, at(10)).await.unwrap());
    assert!(!accounts.remove(&user("bob"), false, at(11)).await.unwrap());
    assert_eq!(accounts.find(&user("bob")).await.unwrap(), None);
    assert!(accounts.remove(&user("cleo"), true, at(12)).await.unwrap());
    let (told, seen, _) = changes(other, last, 9).await;
    assert_eq!(told, ["-bob", "-cleo!"]);
    accounts.purged(&user("cleo")).await.unwrap();
    assert_eq!(changes(other, last, 9).await.0, ["-bob", "-cleo"]);
    assert!(
        changes(other, seen, 9).await.0.is_empty(),
        "nothing to do about it"
    );
    accounts.purged(&ada.user).await.unwrap();
    assert!(
        accounts.find(&ada.user).await.unwrap().is_some(),
        "only notes"
    );

    // Without an account, only a purge is noted.
    assert!(!accounts.remove(&user("dan"), true, at(13)).await.unwrap());
    assert_eq!(changes(other, seen, 9).await.0, ["-dan!"]);

    // Somebody who was removed may come back.
    assert!(
        accounts
            .put(account("bob", None), Expected::Absent)
            .await
            .unwrap()
    );
    assert!(accounts.find(&user("bob")).await.unwrap().is_some());

    // Notes do not pile up.
    let later = at(14).plus_ms(NOTE_MS);
    assert!(accounts.remove(&user("bob"), false, later).await.unwrap());
    let (told, ..) = changes(other, 0, 9).await;
    assert_eq!(told, ["+ada@example.com", "+Zoë {}:* 100 %", "-bob"]);

    // Many at a time lose nothing.
    let add = |number| async move {
        let account = account(&format!("many-{number:02}"), None);
        accounts.put(account, Expected::Absent).await.unwrap()
    };
    let (a, b, c, d) = tokio::join!(add(1), add(2), add(3), add(4));
    assert!(a && b && c && d);
    assert_eq!(names(other, Some("many"), 9).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("new");
    let accounts = AccountsFile::new(&place);
    contract(&accounts, &AccountsFile::new(&place)).await;
    assert!(place.join("accounts.db").exists());
}

#[tokio::test]
async fn looking_makes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = AccountsFile::new(folder.path());
    assert!(names(&accounts, None, 9).await.is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn another_programs_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accounts.db");
    std::fs::write(&path, "somebody else's").unwrap();
    let accounts = AccountsFile::new(folder.path());
    let added = accounts.put(account("ada", None), Expected::Absent).await;
    assert!(added.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody else's");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_the_contract() {
    let server = RedisServer::start(&RedisOptions::default());
    let settings = RedisSettings {
        url: Secret::new(server.url()),
        prefix: "accounts-test".to_owned(),
        ca_file: None,
        connect_timeout_ms: 2_000,
        response_timeout_ms: 5_000,
    };
    let accounts = RedisAccounts::new(&settings).unwrap();
    contract(&accounts, &RedisAccounts::new(&settings).unwrap()).await;
}
