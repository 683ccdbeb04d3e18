//! Constants in scripts, put in place of their names before a script is sent.
//!
//! Problem: a script names what it means (`row[DUE_AT]`), and in Lua 5.1 such a name is a local variable. Each function
//! that is made while the script runs looks up each local it uses by walking a list of all that are in use, so a hundred
//! constants made the making of functions the dearest part of a short script. Idea: lines like
//! `local ENROLLED, DUE_AT = 1, 2` are taken out, and each name is replaced by its value, which costs nothing at all.
//!
//! A constant is a name in capitals whose value is a whole number (as a text, too) or one of `KEYS`. Texts and comments are left as
//! they are. A name that two parts of one script give different values is a bug of ours and panics.

use std::collections::BTreeMap;

/// `text` with its constants in place.
pub(super) fn put_in_place(text: &str) -> String {
    let mut constants = BTreeMap::new();
    let mut rest = String::with_capacity(text.len());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut statement = line.to_owned();
        if line.starts_with([' ', 'l']) && line.ends_with('=') {
            // The values stand on the next line.
            statement.push_str(lines.next().unwrap_or_default());
        }
        match definitions(&statement) {
            Some(defined) => {
                for (name, value) in defined {
                    let before = constants.insert(name.to_owned(), value.to_owned());
                    assert!(
                        before.is_none_or(|before| before == value),
                        "{name} has two values in one script"
                    );
                }
            }
            None => rest.push_str(&statement),
        }
        rest.push('\n');
    }
    replaced(&rest, &constants)
}

/// The names and values of a statement that only defines constants.
fn definitions(statement: &str) -> Option<Vec<(&str, &str)>> {
    let (names, values) = statement
        .trim_start()
        .strip_prefix("local ")?
        .split_once('=')?;
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    let values: Vec<&str> = values.split(',').map(str::trim).collect();
    let all = names.iter().all(|name| is_name(name)) && values.iter().all(|value| is_value(value));
    (all && names.len() == values.len()).then(|| names.into_iter().zip(values).collect())
}

fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_uppercase())
        && word
            .chars()
            .all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_')
}

fn is_value(word: &str) -> bool {
    let within = |begin: &str, end: &str| word.strip_prefix(begin)?.strip_suffix(end);
    let number = within("KEYS[", "]")
        .or_else(|| within("'", "'"))
        .unwrap_or(word);
    !number.is_empty() && number.chars().all(|digit| digit.is_ascii_digit())
}

/// Replaces whole names outside of texts and comments.
fn replaced(text: &str, constants: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '\'' | '"' => {
                let inside = &rest[1..];
                let end = inside.find(first).expect("a text of a script ends");
                end + 2
            }
            _ if first.is_ascii_alphanumeric() || first == '_' => rest
                .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
                .unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (word, after) = rest.split_at(length);
        out.push_str(constants.get(word).map_or(word, String::as_str));
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_their_values_and_texts_and_comments_stay() {
        let script = "\
-- DUE is when
local ROWS, DUE =
    1, KEYS[12]
local NOWHERE = { false }
do
    local PAGE, LIMIT = 200, '300'
    call('DUE', DUE, row[ROWS], PAGES, PAGE, LIMIT, row.DUE_AT) -- by DUE
end
";
        let expected = "\
-- DUE is when

local NOWHERE = { false }
do

    call('DUE', KEYS[12], row[1], PAGES, 200, '300', row.DUE_AT) -- by DUE
end
";
        assert_eq!(put_in_place(script), expected);
    }

    #[test]
    fn what_is_computed_or_not_in_capitals_stays_a_variable() {
        for script in [
            "local WAIT = now + 1\n",
            "local first = 1\n",
            "local A, B = 1\n",
            "local A = -1\n",
        ] {
            assert_eq!(put_in_place(script), script);
        }
    }

    #[test]
    #[should_panic(expected = "PAGE has two values in one script")]
    fn two_values_of_one_name_are_a_bug() {
        put_in_place("local PAGE = 1\nlocal PAGE = 2\n");
    }
}
