use super::*;

const TARGET: Target<'_> = Target {
    destination: "a.b",
    path: "/a",
    interface: "a.B",
};

#[test]
fn a_call_is_laid_out_as_the_specification_says() {
    let arguments = [Value::Text("x".to_owned()), Value::U32(7)];
    let bytes = call(3, &TARGET, "M", &arguments).unwrap();
    assert_eq!(total_length(&bytes), Some(bytes.len()));
    assert_eq!(bytes.get(..4), Some(b"l\x01\x00\x01".as_slice()));
    // Body: length 1, "x", NUL, padding to four, 7.
    assert!(bytes.ends_with(&[1, 0, 0, 0, b'x', 0, 0, 0, 7, 0, 0, 0]));
    let message = parse(&bytes).unwrap();
    assert_eq!(
        (message.kind, message.member.as_deref()),
        (Kind::Call, Some("M"))
    );
    assert_eq!(
        (message.signature.as_str(), message.text(0).as_deref()),
        ("su", Some("x"))
    );
}

#[test]
fn containers_are_padded_and_counted() {
    let layout = |value: Value| {
        let mut writer = Writer::default();
        writer.value(&value);
        writer.bytes
    };
    assert_eq!(layout(Value::Bytes(vec![5, 6])), [2, 0, 0, 0, 5, 6]);
    assert_eq!(layout(Value::Numbers(vec![9])), [4, 0, 0, 0, 9, 0, 0, 0]);
    assert_eq!(layout(Value::NoUnits), [0; 8]);
    let property = Value::Properties(vec![("k".to_owned(), Value::Bool(true))]);
    let expected = [
        16, 0, 0, 0, 0, 0, 0, 0, // length, padding to the structure
        1, 0, 0, 0, b'k', 0, // name
        1, b'b', 0, 0, 0, 0, // signature, padding
        1, 0, 0, 0,
    ];
    assert_eq!(layout(property), expected);
}

#[test]
fn variants_and_later_arguments_are_read() {
    let mut writer = Writer::default();
    writer.u32(4);
    writer.text("/job");
    writer.signature("s");
    writer.text("done");
    let message = Message {
        kind: Kind::Signal,
        reply_serial: None,
        error_name: None,
        member: None,
        signature: "uov".to_owned(),
        body: writer.bytes,
    };
    let texts = [0, 1, 2, 3].map(|index| message.text(index));
    assert_eq!(
        texts,
        [None, Some("/job".to_owned()), Some("done".to_owned()), None]
    );
}

#[test]
fn malformed_messages_are_refused_without_panic() {
    let whole = call(3, &TARGET, "M", &[Value::Text("x".to_owned())]).unwrap();
    for length in 0..whole.len() {
        let cut = &whole[..length];
        let _ = (total_length(cut), parse(cut).map(|message| message.text(0)));
    }
    for index in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = whole.clone();
            changed[index] = value;
            let _ = (
                total_length(&changed),
                parse(&changed).map(|message| message.text(0)),
            );
        }
    }
    assert_eq!(
        total_length(b"l\x01\x00\x01\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff"),
        None
    );
    assert_eq!(total_length(b"B\x01\x00\x01\0\0\0\0\0\0\0\0\0\0\0\0"), None);
}
