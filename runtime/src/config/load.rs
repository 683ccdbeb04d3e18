//! Gathering: from the file, the environment and the flags to one value a setting, each with its origin.
//!
//! The file is parsed by the `toml` crate with the position of every key, so that whatever is wrong can be named by
//! its line. A name that is not in the table of settings is a problem, in the file and in the environment alike: a
//! setting that is silently ignored is the worst kind of wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::check;
use super::locate::{Lines, Place, Problems};
use super::settings::{
    self, ENVIRONMENT_CONFIG, ENVIRONMENT_PREFIX, FILE_DEFAULT, SETTINGS, Setting, USERS,
};
use super::show::Effective;
use super::users::{self, RawUser};
use super::value::Raw;

/// The largest configuration or users' file, in bytes: a million users with their tokens.
pub const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The largest file that holds a secret, in bytes.
pub const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// What a person asked for on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The file named by `--config`.
    pub file: Option<String>,
    /// Flags that overrule settings, as `(flag, value)`, such as `("--concurrency", "5")`.
    pub flags: Vec<(&'static str, String)>,
    /// The folder to which relative paths outside of a file are relative; empty: the process's own.
    pub folder: PathBuf,
}

/// A configuration without problems.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The file, as it was named; `None` if there was none.
    pub file: Option<String>,
    /// What looks unwise but is allowed, each in a sentence.
    pub warnings: Vec<String>,
    /// Every setting with its value and where it comes from, secrets hidden.
    pub effective: Vec<Effective>,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// No file and no variable says anything.
    Nothing,
    /// This is wrong.
    Wrong(Problems),
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Wrong(problems) => write!(formatter, "{problems}"),
            LoadError::Nothing => write!(
                formatter,
                "there is no configuration: no --config, no {ENVIRONMENT_CONFIG}, no {FILE_DEFAULT} in this folder\n\
                 \n\
                 A small {FILE_DEFAULT}:\n\
                 \n\
                 [google]\n\
                 client_id = \"....apps.googleusercontent.com\"\n\
                 client_secret_file = \"client_secret.txt\"\n\
                 \n\
                 [[users]]\n\
                 id = \"ada@example.com\"\n\
                 refresh_token_file = \"ada.token\"\n\
                 \n\
                 All settings: kalends config show --defaults\n\
                 To see Kalends at work without an account: kalends demo"
            ),
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads and checks a configuration.
///
/// `environment` is all variables of the process; those that begin with `KALENDS_` are settings, and any may be named
/// by a user's `refresh_token_env`.
///
/// # Errors
/// [`LoadError::Nothing`] if nothing was configured at all, else every problem there is.
pub fn load(
    request: &Request,
    environment: &BTreeMap<String, String>,
) -> Result<Loaded, LoadError> {
    let mut problems = Problems::default();
    let named = find_file(request, environment);
    let set_by_environment = environment
        .keys()
        .any(|name| is_ours(name, environment) && name != ENVIRONMENT_CONFIG);
    if named.is_none() && !set_by_environment {
        return Err(LoadError::Nothing);
    }
    let mut given = Given::new(request.folder.clone());
    if let Some(file) = &named {
        given.file_folder = request.folder.join(
            Path::new(&file.name)
                .parent()
                .unwrap_or_else(|| Path::new("")),
        );
        given.file = Some(file.name.clone());
        let gathered = read_configuration(file, request, &mut problems)
            .and_then(|text| gather_file(&mut given, &text, &mut problems));
        // Of a file that could not be read, nothing can be said to be missing.
        if gathered.is_none() {
            return Err(LoadError::Wrong(problems));
        }
    }
    gather_outside(&mut given, request, environment, &mut problems);
    users::gather_users_file(&mut given, &mut problems);
    refuse_unknown_variables(&given, environment, &mut problems);
    let checked = check::check(&given, environment, &mut problems);
    match checked {
        Some(config) if problems.is_empty() => Ok(Loaded {
            warnings: super::advise::advise(&config, &given),
            effective: super::show::effective(&given),
            file: given.file,
            config,
        }),
        _ => {
            assert!(!problems.is_empty(), "no configuration, but no reason why");
            Err(LoadError::Wrong(problems))
        }
    }
}

/// One value of one setting.
#[derive(Clone)]
pub(super) struct GivenValue {
    pub(super) raw: Raw,
    /// Where it was given; `None`: it is the default.
    pub(super) place: Option<Place>,
}

/// All that was given, and where.
pub(super) struct Given {
    /// Settings that have a value, by section and key.
    pub(super) values: BTreeMap<(&'static str, &'static str), GivenValue>,
    /// Where each section of the file begins.
    pub(super) sections: BTreeMap<String, Place>,
    /// Users, in the order in which they were given.
    pub(super) users: Vec<RawUser>,
    /// The configuration file, as it was named.
    pub(super) file: Option<String>,
    /// The users' file, where it was found.
    pub(super) users_path: Option<PathBuf>,
    /// The folder of the configuration file.
    pub(super) file_folder: PathBuf,
    /// The working folder.
    pub(super) folder: PathBuf,
}

impl Given {
    /// Defaults only.
    pub(super) fn new(folder: PathBuf) -> Self {
        let values = SETTINGS
            .iter()
            .filter_map(|setting| Some(((setting.section, setting.key), default_value(setting)?)))
            .collect();
        Given {
            values,
            sections: BTreeMap::new(),
            users: Vec::new(),
            file: None,
            users_path: None,
            file_folder: folder.clone(),
            folder,
        }
    }

    /// The path of the configuration file, where it was found.
    pub(super) fn path(&self) -> Option<PathBuf> {
        Some(self.folder.join(self.file.as_ref()?))
    }

    /// Where to say that a key is missing: at its section, else at the file, else nowhere.
    pub(super) fn place_of_section(&self, section: &str) -> Place {
        if let Some(place) = self.sections.get(section) {
            return place.clone();
        }
        match &self.file {
            Some(file) => Place::File {
                order: 0,
                line: Place::LINE_NONE,
                file: file.clone(),
            },
            None => Place::Nowhere,
        }
    }

    /// The folder to which the paths of a user are relative: that of the file in which the user stands.
    pub(super) fn folder_of(&self, user: &RawUser) -> &Path {
        let users_folder = self.users_path.as_ref().and_then(|path| path.parent());
        match &user.place {
            Place::File { order: 1, .. } => users_folder.unwrap_or(&self.folder),
            _ => &self.file_folder,
        }
    }

    /// The path that `text` means, given at `place`.
    pub(super) fn resolve(&self, text: &str, place: Option<&Place>) -> PathBuf {
        match place {
            Some(Place::File { .. }) => self.file_folder.join(text),
            _ => self.folder.join(text),
        }
    }
}

/// The default of a setting, read from the table.
pub(super) fn default_value(setting: &Setting) -> Option<GivenValue> {
    let default = DeValue::parse(setting.default?).expect("the tests read every default");
    Some(GivenValue {
        raw: Raw::from_toml(default.get_ref()),
        place: None,
    })
}

struct NamedFile {
    name: String,
    /// Who named it, for the case that it cannot be read.
    named_by: &'static str,
}

fn find_file(request: &Request, environment: &BTreeMap<String, String>) -> Option<NamedFile> {
    if let Some(name) = &request.file {
        return Some(NamedFile {
            name: name.clone(),
            named_by: "--config",
        });
    }
    if let Some(name) = environment.get(ENVIRONMENT_CONFIG) {
        return Some(NamedFile {
            name: name.clone(),
            named_by: ENVIRONMENT_CONFIG,
        });
    }
    // A link that leads nowhere is there: it must be complained about, not passed over.
    std::fs::symlink_metadata(request.folder.join(FILE_DEFAULT))
        .is_ok()
        .then(|| NamedFile {
            name: FILE_DEFAULT.to_owned(),
            named_by: "the working folder",
        })
}

fn read_configuration(
    file: &NamedFile,
    request: &Request,
    problems: &mut Problems,
) -> Option<String> {
    match read_text(&request.folder.join(&file.name), FILE_BYTES_MAX) {
        Ok(text) => Some(text),
        Err(message) => {
            let place = Place::File {
                order: 0,
                line: Place::LINE_NONE,
                file: file.name.clone(),
            };
            problems.add(
                place,
                "",
                format!(
                    "{message} (named by {}); correct the path or the permissions, or make the file: \
                     kalends config show --defaults prints an example",
                    file.named_by
                ),
            );
            None
        }
    }
}

/// The text of a file of at most `bytes_max` bytes; else what is wrong, in words that hold nothing of its content.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?
            .take(bytes_max + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("is larger than {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        format!("is not UTF-8 text (line {line})")
    })
}

/// Takes what the file says; `None` if it is not TOML.
fn gather_file(given: &mut Given, text: &str, problems: &mut Problems) -> Option<()> {
    let name = given.file.clone().expect("set by whoever read it");
    let lines = Lines::new(text);
    let at = |offset: usize| Place::File {
        order: 0,
        line: lines.line(offset),
        file: name.clone(),
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut lines_told = BTreeSet::new();
    for error in &errors {
        let place = at(error.span().map_or(text.len(), |span| span.start));
        // One slip of the pen often makes several errors; the first of a line is the one to mend.
        if lines_told.insert(place.clone()) {
            problems.add(place, "", format!("not valid TOML: {}", error.message()));
        }
    }
    if !errors.is_empty() {
        return None;
    }
    for (key, value) in document.get_ref() {
        let place = at(key.span().start);
        let key: &str = key.get_ref();
        if key == USERS {
            users::gather_tables(given, value, &place, &at, problems);
        } else if let Some(setting) = settings::find("", key) {
            given.set(setting, Raw::from_toml(value.get_ref()), place);
        } else if settings::sections().contains(&key) {
            given.sections.insert(key.to_owned(), place.clone());
            gather_section(given, key, value, &place, &at, problems);
        } else {
            problems.add(place, key, unknown_section(key));
        }
    }
    Some(())
}

impl Given {
    fn set(&mut self, setting: &'static Setting, raw: Raw, place: Place) {
        let value = GivenValue {
            raw,
            place: Some(place),
        };
        self.values.insert((setting.section, setting.key), value);
    }
}

fn gather_section(
    given: &mut Given,
    section: &str,
    value: &Spanned<DeValue<'_>>,
    place: &Place,
    at: &impl Fn(usize) -> Place,
    problems: &mut Problems,
) {
    let DeValue::Table(table) = value.get_ref() else {
        let message = format!("is a section; write [{section}] on a line of its own");
        problems.add(place.clone(), section, message);
        return;
    };
    for (key, value) in table {
        let place = at(key.span().start);
        let key: &str = key.get_ref();
        match settings::find(section, key) {
            Some(setting) => given.set(setting, Raw::from_toml(value.get_ref()), place),
            None => problems.add(place, format!("{section}.{key}"), unknown_key(section, key)),
        }
    }
}

fn unknown_section(key: &str) -> String {
    let sections = settings::sections();
    let all = sections.iter().copied().chain([USERS, "users_file"]);
    if let Some(near) = settings::nearest(key, all) {
        return format!("is not known; did you mean {near}?");
    }
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
        return format!("is not known here; it belongs below [{}]", setting.section);
    }
    format!("is not known; there are {}, {USERS}", sections.join(", "))
}

fn unknown_key(section: &str, key: &str) -> String {
    let keys: Vec<&str> = SETTINGS
        .iter()
        .filter(|setting| setting.section == section)
        .map(|setting| setting.key)
        .collect();
    if let Some(near) = settings::nearest(key, keys.iter().copied()) {
        return format!("is not known; did you mean {near}?");
    }
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
        return match setting.section {
            "" => "is not known here; it belongs above all sections".to_owned(),
            section => format!("is not known here; it belongs below [{section}]"),
        };
    }
    format!("is not known; [{section}] has {}", keys.join(", "))
}

fn gather_outside(
    given: &mut Given,
    request: &Request,
    environment: &BTreeMap<String, String>,
    problems: &mut Problems,
) {
    for setting in SETTINGS {
        let name = setting.environment_name();
        if let Some(text) = environment.get(&name) {
            given.set(
                setting,
                Raw::Outside(text.clone()),
                Place::Environment(name),
            );
        }
    }
    for (flag, text) in &request.flags {
        match SETTINGS.iter().find(|setting| setting.flag == Some(flag)) {
            Some(setting) => given.set(
                setting,
                Raw::Outside(text.clone()),
                Place::Flag((*flag).to_owned()),
            ),
            None => problems.add(
                Place::Flag((*flag).to_owned()),
                "",
                "is not the flag of a setting",
            ),
        }
    }
}

/// Whether a variable is meant for us. A Kubernetes Service that is called `kalends`, or `kalends-redis`, makes the
/// kubelet set variables of our prefix in every pod of its namespace (`KALENDS_REDIS_SERVICE_HOST`,
/// `KALENDS_REDIS_PORT_6379_TCP`, ..): they are nobody's mistake, and no setting is called so. Each such Service is
/// known by its `.._SERVICE_HOST`.
fn is_ours(name: &str, environment: &BTreeMap<String, String>) -> bool {
    let is_of_service = |kind: &str| {
        name.match_indices(kind).any(|(at, _)| {
            let service = &name[..at];
            environment.contains_key(&format!("{service}_SERVICE_HOST"))
        })
    };
    name.starts_with(ENVIRONMENT_PREFIX)
        && !["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
            .into_iter()
            .any(is_of_service)
}

fn refuse_unknown_variables(
    given: &Given,
    environment: &BTreeMap<String, String>,
    problems: &mut Problems,
) {
    let known: Vec<String> = SETTINGS.iter().map(Setting::environment_name).collect();
    let tokens: BTreeSet<&str> = given
        .users
        .iter()
        .filter_map(RawUser::token_variable)
        .collect();
    for name in environment.keys() {
        let is_known = !is_ours(name, environment)
            || name == ENVIRONMENT_CONFIG
            || known.contains(name)
            || tokens.contains(name.as_str());
        if is_known {
            continue;
        }
        let candidates = known
            .iter()
            .map(String::as_str)
            .chain([ENVIRONMENT_CONFIG])
            .min_by_key(|candidate| strsim::osa_distance(name, candidate));
        let near = candidates.expect("there are settings");
        problems.add(
            Place::Environment(name.clone()),
            "",
            format!("is not a variable of Kalends; did you mean {near}? Otherwise unset it"),
        );
    }
}
