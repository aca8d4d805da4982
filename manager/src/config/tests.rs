use super::*;

const GOOD: &str = include_str!("sample.toml");

fn message(text: &str) -> String {
    Config::parse(text).expect_err("must be refused").to_string()
}

#[test]
fn a_short_file_is_enough_and_the_rest_has_defaults() {
    let config = Config::parse(GOOD).unwrap();
    assert_eq!(config.own().client, "127.0.0.1:7201".parse().unwrap());
    assert_eq!(config.transport.path, PathChoice::Auto);
    assert_eq!(config.timing.dead_ms, 100);
    assert_eq!(config.limits, Limits::default());
}

#[test]
fn verbs_want_the_operators_word() {
    let with = |more: &str| format!("{GOOD}\n[transport]\npath = \"verbs\"\n{more}");
    let text = message(&with(""));
    assert!(text.contains("write trusted_fabric = true"), "{text}");
    let config = Config::parse(&with("trusted_fabric = true\ndevice = \"mlx5_0\"\n")).unwrap();
    assert_eq!(config.transport.device.as_deref(), Some("mlx5_0"));
}

#[test]
fn offload_may_be_switched_off() {
    let with = |value: &str| format!("{GOOD}\n[transport]\noffload = \"{value}\"\n");
    assert_eq!(Config::parse(GOOD).unwrap().transport.offload, OffloadChoice::Auto);
    assert_eq!(Config::parse(&with("off")).unwrap().transport.offload, OffloadChoice::Off);
    let text = message(&with("none"));
    assert!(text.contains("none") && text.contains("auto"), "{text}");
}

#[test]
fn marks_of_packets_are_possible_ones() {
    let with = |more: &str| format!("{GOOD}\n[transport]\n{more}");
    let config = Config::parse(GOOD).unwrap();
    assert_eq!((config.transport.traffic_class, config.transport.service_level), (0, 0));
    let config = Config::parse(&with("traffic_class = 255\nservice_level = 15\n")).unwrap();
    assert_eq!((config.transport.traffic_class, config.transport.service_level), (255, 15));
    let text = message(&with("service_level = 16\n"));
    assert!(text.contains("transport.service_level") && text.contains("0 to 15"), "{text}");
    let text = message(&with("traffic_class = 256\n"));
    assert!(text.contains("256") && text.contains("traffic_class"), "{text}");
}

#[test]
fn a_partition_is_one() {
    let with = |more: &str| format!("{GOOD}\n[transport]\n{more}");
    assert_eq!(Config::parse(GOOD).unwrap().transport.partition, None);
    let config = Config::parse(&with("partition = 0x8001\n")).unwrap();
    assert_eq!(config.transport.partition, Some(0x8001));
    let text = message(&with("partition = 0x8000\n"));
    assert!(text.contains("transport.partition") && text.contains("0x8000"), "{text}");
}

#[test]
fn what_is_written_can_be_read_again() {
    let mut config = Config::parse(GOOD).unwrap();
    config.transport.shm_gid = Some(1234);
    config.transport.path = PathChoice::Udp;
    config.admin.http = Some("127.0.0.1:7301".parse().unwrap());
    let text = toml::to_string_pretty(&config).unwrap();
    assert_eq!(Config::parse(&text).unwrap(), config);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let text = message(&GOOD.replace("data_dir", "datadir"));
    assert!(text.contains(":3:"), "{text}");
    assert!(text.contains("datadir") && text.contains("did you mean `data_dir`?"), "{text}");
    let text = message(&format!("{GOOD}\n[timing]\nheartbeat = 5\n"));
    assert!(text.contains("did you mean `heartbeat_ms`?"), "{text}");
    let text = message(&format!("{GOOD}\n[transport]\npath = \"udpp\"\n"));
    assert!(text.contains("did you mean `udp`?"), "{text}");
}

#[test]
fn a_file_of_the_time_before_encryption_is_told_what_to_do() {
    let text = message(&format!("{GOOD}\n[transport]\nplaintext = true\n"));
    assert!(text.contains("always encrypted") && text.contains("quintet cluster init"), "{text}");
    assert!(!text.contains("did you mean"), "{text}");
}

#[test]
fn a_missing_key_and_a_wrong_type_are_named() {
    let text = message(&GOOD.replace("cluster = \"demo\"", ""));
    assert!(text.contains("missing field `cluster`"), "{text}");
    let text = message(&GOOD.replace("node = 1", "node = \"one\""));
    assert!(text.contains(":1:") && text.contains("u16"), "{text}");
    let text = message(&GOOD.replace("[client]", "[client"));
    assert!(text.contains("[client"), "{text}");
}

#[test]
fn values_that_cannot_be_right_say_what_to_write() {
    let cases = [
        ("node = 1\n", "node = 9\n", "`node`: node 9 is not in the list of nodes (1, 2)"),
        ("id = 2", "id = 1", "listed twice"),
        ("127.0.0.1:7102", "127.0.0.1:7101", "`nodes.transport`: nodes 1 and 2 share the address"),
        ("127.0.0.1:7202", "127.0.0.1:7201", "`nodes.client`: nodes 1 and 2 share the address"),
        ("127.0.0.1:7102", "0.0.0.0:7102", "`nodes.transport`: nobody can reach node 2"),
        ("127.0.0.1:7102", "10.0.0.2:7102", "`nodes.transport`: node 2 at 10.0.0.2:7102 cannot be"),
        ("id = 2", "id = 5000", "use a number from 1 to 4096"),
        (
            "bind = \"127.0.0.1:7101",
            "bind = \"127.0.0.1:7100",
            "`bind`: 127.0.0.1:7100 is not where",
        ),
        (
            "listen = \"127.0.0.1:7201",
            "listen = \"127.0.0.1:7209",
            "`client.listen`: 127.0.0.1:7209",
        ),
        ("data_dir = \"/tmp/quintet\"", "data_dir = \"\"", "`data_dir`: it is empty"),
        ("\"demo\"", "\"de mo\"", "is not a cluster name"),
    ];
    for (from, to, expected) in cases {
        let text = message(&GOOD.replacen(from, to, 1));
        assert!(text.contains(expected), "{text}");
    }
    let text = message(&format!("{GOOD}http = \"10.0.0.1:80\"\n"));
    assert!(text.contains("admin.http") && text.contains("loopback"), "{text}");
    let text = message(&format!("{GOOD}\n[timing]\nsuspect_ms = 200\n"));
    assert!(text.contains("timing") && text.contains("dead_ms greater"), "{text}");
    let text = message(&format!("{GOOD}http = \"127.0.0.1:7201\"\n"));
    assert!(text.contains("admin.http") && text.contains("taken by client.listen"), "{text}");
    let text = message(&format!("{GOOD}\n[limits]\ncalls = 0\n"));
    assert!(text.contains("limits.calls") && text.contains("the usual 32768"), "{text}");
    let text = message(&format!("{GOOD}\n[limits]\nrequest_bytes = 2000000\n"));
    assert!(text.contains("limits.request_bytes") && text.contains("use at most 1048"), "{text}");
    // Listening at all addresses of the machine, known by one of them.
    Config::parse(&GOOD.replace("listen = \"127.0.0.1", "listen = \"0.0.0.0")).unwrap();
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let text = Config::load(Path::new("/nonexistent/q.toml")).unwrap_err().to_string();
    assert!(text.contains("/nonexistent/q.toml") && text.contains("No such file"), "{text}");
}

#[test]
fn a_node_may_have_an_address_in_each_of_several_networks() {
    let two = |text: &str| {
        text.replace(
            "transport = \"127.0.0.1:7101\"",
            "transport = [\"127.0.0.1:7101\", \"127.1.0.1:7101\"]",
        )
        .replace(
            "transport = \"127.0.0.1:7102\"",
            "transport = [\"127.0.0.1:7102\", \"127.1.0.1:7102\"]",
        )
    };
    let text = two(GOOD).replace("bind = \"127.0.0.1:7101\"\n", "");
    let config = Config::parse(&text).unwrap();
    assert_eq!(config.own().transport.to_string(), "127.0.0.1:7101, 127.1.0.1:7101");
    let again = toml::to_string_pretty(&config).unwrap();
    assert_eq!(Config::parse(&again).unwrap(), config);
    // A `bind` of only one of them is not what the others look for.
    let said = message(&two(GOOD));
    assert!(
        said.contains("`bind`: 127.0.0.1:7101 is not where") && said.contains("leave `bind` out"),
        "{said}"
    );
    let list = "transport = [\"127.0.0.1:7102\", \"127.1.0.1:7102\"]";
    for (wrong, expected) in [
        ("transport = []", "node 2 has 0 addresses; write 1 to 4"),
        ("transport = [\"127.0.0.1:7102\", \"127.0.0.1:7102\"]", "node 2 has 127.0.0.1:7102 twice"),
        (
            "transport = [\"127.0.0.1:7102\", \"127.1.0.1:7101\"]",
            "nodes 1 and 2 share the address 127.1.0.1:7101",
        ),
        (
            "transport = [\"127.0.0.1:7102\", \"10.1.0.2:7102\"]",
            "node 2 at 10.1.0.2:7102 cannot be reached from 127.1.0.1:7101",
        ),
        (
            "transport = [\"127.0.0.1:7102\", \"127.1.0.1:0\"]",
            "nobody can reach node 2 at 127.1.0.1:0",
        ),
        (
            "transport = [\"127.0.0.1:7102\", \"127.1.0.1\"]",
            "\"127.1.0.1\": invalid socket address",
        ),
    ] {
        let said = message(&text.replace(list, wrong));
        assert!(said.contains(expected), "{said}");
    }
    // A node that is in one network only is linked by that.
    Config::parse(&text.replace(list, "transport = \"127.0.0.1:7102\"")).unwrap();
}

#[test]
fn an_interface_may_stand_in_place_of_an_address() {
    let with = |choice: &str| format!("{GOOD}\n[transport]\ninterface = {choice}\n");
    let config = Config::parse(&with("\"127.0.0.0/8\"")).unwrap();
    assert_eq!(config.transport.interface.to_string(), "127.0.0.0/8");
    assert_eq!(Config::parse(&toml::to_string_pretty(&config).unwrap()).unwrap(), config);
    let said = message(&with("[\"eth0\", \"eth1\"]"));
    assert!(
        said.contains("`transport.interface`: eth0, eth1 for the addresses 127.0.0.1:7101"),
        "{said}"
    );
    let said = message(&with("\"10.0.0.0/40\""));
    assert!(said.contains("a subnet has 0 to 32 bits, not 40"), "{said}");
}
