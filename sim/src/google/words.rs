//! The words that made-up events are made of; some hold quotes, HTML, line breaks or other scripts, to be read as they are.

pub(super) const TOPICS: [&str; 24] = [
    "Planning",
    "Review",
    "Stand-up",
    "One-to-one",
    "Retro",
    "Interview",
    "Budget",
    "Roadmap",
    "Design crit",
    "Lunch",
    "Dentist",
    "Piano lesson",
    "Release",
    "Onboarding",
    "Workshop",
    "Board call",
    "Café",
    "Überblick",
    "打ち合わせ",
    "Sync \"weekly\"",
    "Gym",
    "School run",
    "Demo",
    "Office hours",
];
pub(super) const PROJECTS: [&str; 12] = [
    "Aurora", "Basalt", "Cobalt", "Dune", "Ember", "Fjord", "Granite", "Harbour", "Indigo",
    "Juniper", "Krypton", "Lagoon",
];
pub(super) const SENTENCES: [&str; 8] = [
    "Please read the notes beforehand.",
    "<b>Agenda</b><br>1. numbers<br>2. next steps",
    "Bring your laptop & charger.",
    "We meet in the small room if the large one is taken.",
    "Dial in by phone if the picture freezes.\nThe code is in the invitation.",
    "Moved from last week because of the holiday.",
    "Cancel by noon if you cannot come.",
    "See C:\\shared\\minutes for what was said.",
];
pub(super) const PLACES: [&str; 8] = [
    "Room 4.12",
    "Main hall",
    "Bahnhofstrasse 1, 8001 Zürich",
    "221B Baker Street, London",
    "Online",
    "Canteen",
    "1600 Amphitheatre Parkway, Mountain View, CA",
    "京都市中京区",
];
