//! Distinguished names as text (RFC 4514).

use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Spells a name: relative names from the last to the first, `+` between the parts
/// of one, values escaped. Attribute types without a short name are spelled as
/// their OID with the value in hexadecimal (§2.4).
#[must_use]
pub fn rfc4514(name: &X509Name<'_>) -> String {
    let mut relative_names: Vec<String> =
        name.iter_rdn().map(|rdn| rdn.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    relative_names.reverse();
    relative_names.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    match (short_name(&oid), attribute.as_str()) {
        (Some(short), Ok(value)) => format!("{short}={}", escape(value)),
        // The parser drops the tag of the value: only its content is left to spell.
        _ => format!("{oid}=#{}", hex::encode(attribute.as_slice())),
    }
}

/// The short names of RFC 4514 §3, and the ones that certificates use besides.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// Escapes a value (RFC 4514 §2.4). Control characters are spelled in hexadecimal
/// too, since the text ends up on terminals and in logs.
fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (index, letter) in value.chars().enumerate() {
        match letter {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', letter]),
            '#' if index == 0 => out.push_str("\\#"),
            ' ' if index == 0 || index == last => out.push_str("\\ "),
            control if control.is_control() => {
                let mut buffer = [0; 4];
                for byte in control.encode_utf8(&mut buffer).bytes() {
                    out.push_str(&format!("\\{byte:02X}"));
                }
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn special_characters_are_escaped() {
        assert_eq!(escape("Sue, Grabbit and Runn"), "Sue\\, Grabbit and Runn");
        assert_eq!(escape(" #x "), "\\ #x\\ ");
        assert_eq!(escape("#x"), "\\#x");
        assert_eq!(escape("a\r\nb\0"), "a\\0D\\0Ab\\00");
        assert_eq!(escape("Лучше"), "Лучше");
    }
}
