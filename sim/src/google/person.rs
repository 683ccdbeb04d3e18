//! Who takes part: users, their contacts and rooms, each a number from which address and name follow.
//!
//! Because a person is a number, an address has the same display name in every calendar of every user, and an event
//! that nobody reads holds no text of anybody.

use kalends_core::rng::stable_hash;

/// How many contacts there are in the world.
pub(crate) const CONTACTS: u64 = 2_000;
/// How many of them one user knows.
const CONTACTS_PER_USER: u64 = 12;
const ROOMS: u64 = 40;

const FIRST_NAMES: [&str; 40] = [
    "Ada", "Amir", "Anna", "Bela", "Carla", "Chen", "Dara", "Elif", "Emil", "Farah", "Finn",
    "Grace", "Hana", "Hugo", "Ines", "Ivan", "Jana", "Jonas", "Kira", "Lars", "Lea", "Luca",
    "Maya", "Milo", "Nadia", "Nils", "Olga", "Omar", "Paula", "Quinn", "Rosa", "Sami", "Tara",
    "Theo", "Uma", "Vera", "Wang", "Yara", "Yusuf", "Zoe",
];
const LAST_NAMES: [&str; 50] = [
    "Abel", "Bauer", "Becker", "Boyd", "Chandra", "Costa", "Dahl", "Diaz", "Eklund", "Ferrari",
    "Fischer", "Garcia", "Green", "Haddad", "Hansen", "Ito", "Jansen", "Kaya", "Keller", "Khan",
    "Kovacs", "Larsen", "Lee", "Lopez", "Maier", "Mensah", "Mora", "Nagy", "Novak", "Okafor",
    "Olsen", "Park", "Petrov", "Quist", "Rao", "Reyes", "Rossi", "Sato", "Silva", "Singh", "Sousa",
    "Tanaka", "Torres", "Ueda", "Varga", "Vogel", "Weber", "Wolf", "Yilmaz", "Zhang",
];

/// Somebody (or a room) with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Person {
    /// A user of the emulator, counted from 0.
    User(u32),
    /// One of [`CONTACTS`].
    Contact(u16),
    /// A meeting room.
    Room(u8),
}

impl Person {
    /// The `choice`-th contact of a user's own pool.
    pub(crate) fn contact_of(seed: u64, user: u32, choice: u64) -> Self {
        let slot = choice % CONTACTS_PER_USER;
        let mut key = [0; 12];
        key[..4].copy_from_slice(&user.to_le_bytes());
        key[4..].copy_from_slice(&slot.to_le_bytes());
        let number = stable_hash(seed, &key) % CONTACTS;
        Person::Contact(u16::try_from(number).expect("below CONTACTS"))
    }

    /// One of the rooms.
    pub(crate) fn room(choice: u64) -> Self {
        Person::Room(u8::try_from(choice % ROOMS).expect("below ROOMS"))
    }

    /// Appends the address in lower case.
    pub(crate) fn write_email(self, out: &mut Vec<u8>) {
        match self {
            Person::User(index) => {
                out.extend_from_slice(b"user-");
                write_padded(out, u64::from(index) + 1, 5);
                out.extend_from_slice(b"@example.com");
            }
            Person::Contact(number) => {
                let (first, last) = contact_names(number);
                out.extend(first.bytes().map(|byte| byte.to_ascii_lowercase()));
                out.push(b'.');
                out.extend(last.bytes().map(|byte| byte.to_ascii_lowercase()));
                out.extend_from_slice(b"@example.org");
            }
            Person::Room(number) => {
                out.extend_from_slice(b"c_room");
                write_padded(out, u64::from(number), 3);
                out.extend_from_slice(b"@resource.calendar.google.com");
            }
        }
    }

    /// Appends the display name.
    pub(crate) fn write_name(self, out: &mut Vec<u8>) {
        match self {
            Person::User(index) => {
                out.extend_from_slice(b"User ");
                write_padded(out, u64::from(index) + 1, 5);
            }
            Person::Contact(number) => {
                let (first, last) = contact_names(number);
                out.extend_from_slice(first.as_bytes());
                out.push(b' ');
                out.extend_from_slice(last.as_bytes());
            }
            Person::Room(number) => {
                out.extend_from_slice(b"Room ");
                write_padded(out, u64::from(number), 3);
            }
        }
    }

    /// The address in lower case.
    pub(crate) fn email(self) -> String {
        collect(|out| self.write_email(out))
    }

    /// The display name.
    pub(crate) fn name(self) -> String {
        collect(|out| self.write_name(out))
    }
}

/// The user that an address names, counted from 0, if it is written exactly as we write it.
pub(crate) fn user_of_email(email: &str, users: u32) -> Option<u32> {
    let digits = email.strip_prefix("user-")?.strip_suffix("@example.com")?;
    let number: u32 = digits.parse().ok()?;
    let index = number.checked_sub(1)?;
    let known = index < users && Person::User(index).email() == email;
    known.then_some(index)
}

fn contact_names(number: u16) -> (&'static str, &'static str) {
    let number = usize::from(number);
    let first = FIRST_NAMES[number % FIRST_NAMES.len()];
    let last = LAST_NAMES[number / FIRST_NAMES.len() % LAST_NAMES.len()];
    (first, last)
}

fn collect(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::with_capacity(32);
    write(&mut out);
    String::from_utf8(out).expect("names and addresses are ASCII")
}

/// Appends a number with at least `width` digits.
pub(crate) fn write_padded(out: &mut Vec<u8>, number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    let mut rest = number;
    while rest > 0 || digits.len() - start < width {
        start -= 1;
        digits[start] = b'0' + u8::try_from(rest % 10).expect("one digit");
        rest /= 10;
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_address_has_one_name() {
        let mut names = BTreeMap::new();
        for number in 0..CONTACTS {
            let person = Person::Contact(u16::try_from(number).unwrap());
            assert_eq!(names.insert(person.email(), person.name()), None);
        }
    }

    #[test]
    fn users_are_found_by_their_exact_address_only() {
        assert_eq!(user_of_email("user-00001@example.com", 3), Some(0));
        assert_eq!(user_of_email("user-00003@example.com", 3), Some(2));
        assert_eq!(user_of_email("user-00004@example.com", 3), None);
        assert_eq!(user_of_email("user-1@example.com", 3), None);
        assert_eq!(user_of_email("user-00000@example.com", 3), None);
        assert_eq!(user_of_email("user-+0001@example.com", 3), None);
    }
}
