//! The section `[http]`: who is let in, by which secret, and what is never shown of it.

use super::*;

const USER: &str = "[[users]]\nid = \"ada\"\nrefresh_token = \"t\"\n";
const TOKEN: &str = "PLANTED-4f1c-0123456789";

fn with_http(http: &str) -> Case {
    Case::new(&format!("{GOOGLE}[http]\n{http}\n{USER}"))
}

#[test]
fn a_token_opens_other_addresses_and_is_not_shown() {
    let open = "listen = \"0.0.0.0:7878\"";
    let refused = with_http(open).problems();
    assert_holds(
        &refused,
        &[
            "http.listen: 0.0.0.0:7878",
            "token_file = ",
            "KALENDS_HTTP_TOKEN",
        ],
    );
    let hosts = "hosts = \"kalends.example.com, Other.example\"";
    let case = with_http(&format!("{open}\n{hosts}\ntoken_file = \"token\""))
        .with_file("token", &format!("{TOKEN}\n"));
    let loaded = case.load().unwrap();
    let http = &loaded.config.http;
    assert_eq!(http.token.as_ref().unwrap().expose(), TOKEN);
    assert_eq!(http.hosts, ["kalends.example.com", "other.example"]);
    let shown = format!("{loaded:?}{}", show(&loaded));
    assert!(!shown.contains(PLANTED), "{shown}");
    let by_variable = with_http(open).with_variable("KALENDS_HTTP_TOKEN", TOKEN);
    let shown = show(&by_variable.load().unwrap());
    assert_holds(&shown, &["token = \"***\""]);
}

#[test]
fn a_token_that_can_be_guessed_is_refused_and_not_repeated() {
    for wrong in ["PLANTED-4f1c", "PLANTED-4f1c with blanks in it"] {
        let problems = with_http(&format!("token = {wrong:?}")).problems();
        assert_holds(
            &problems,
            &["http.token: is no token", "openssl rand -hex 32"],
        );
        assert!(!problems.contains(PLANTED), "{problems}");
    }
    let missing = with_http("token_file = \"nowhere\"").problems();
    assert_holds(&missing, &["http.token_file: \"nowhere\" cannot be read"]);
}

#[test]
fn the_connections_of_one_address_are_bounded_by_those_of_all() {
    let loaded = with_http("").load().unwrap();
    assert_eq!(loaded.config.http.connections_per_address_max, None);
    let loaded = with_http("connections_per_address_max = 48")
        .load()
        .unwrap();
    assert_eq!(loaded.config.http.connections_per_address_max, Some(48));
    for wrong in ["0", "65"] {
        let set = format!("connections_per_address_max = {wrong}");
        let problems = with_http(&set).problems();
        assert_holds(
            &problems,
            &["http.connections_per_address_max: is ", "1 to 64"],
        );
        let problems = Case::new(&format!("{GOOGLE}[push]\n{set}\n{USER}")).problems();
        assert_holds(&problems, &["push.connections_per_address_max: is "]);
    }
}

#[test]
fn host_names_are_names() {
    for wrong in ["https://a", "a:80", "a,,b", "a b"] {
        let problems = with_http(&format!("hosts = {wrong:?}")).problems();
        assert_holds(&problems, &["http.hosts: holds ", "kalends.example.com"]);
    }
}
