//! `cargo xtask compat`: the part of COMPAT.md that the scenarios themselves print.

use crate::process::{capture, cargo, root};
use crate::{Result, unknown};

const FILE: &str = "COMPAT.md";
const BEGIN: &str = "<!-- generated: scenarios -->";
const END: &str = "<!-- end -->";

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => {
            let (old, new) = old_and_new()?;
            if old != new {
                std::fs::write(root()?.join(FILE), new).map_err(|e| format!("{FILE} cannot be written: {e}"))?;
                println!("{FILE} was brought up to date");
            }
            Ok(())
        }
        [check] if check == "--check" => {
            let (old, new) = old_and_new()?;
            if old == new {
                return Ok(());
            }
            let at = old.lines().zip(new.lines()).take_while(|(old, new)| old == new).count() + 1;
            Err(format!("the generated part of {FILE} differs from line {at} on; run `cargo xtask compat`"))
        }
        [argument, ..] => unknown("compat", argument),
    }
}

/// Whether there is a part to check. Tidy leaves a COMPAT.md without the markers alone.
pub(crate) fn has_generated_part() -> Result<bool> {
    Ok(std::fs::read_to_string(root()?.join(FILE)).is_ok_and(|text| text.contains(BEGIN)))
}

fn old_and_new() -> Result<(String, String)> {
    let old = std::fs::read_to_string(root()?.join(FILE)).map_err(|e| format!("{FILE} cannot be read: {e}"))?;
    let program = ["run", "--quiet", "-p", "cloakroom-testkit", "--bin", "scenarios", "--", "compat"];
    let generated = capture(cargo()?.args(program))?;
    let new = replace(&old, &generated)?;
    Ok((old, new))
}

/// The text with what stands between the markers replaced.
fn replace(text: &str, generated: &str) -> Result<String> {
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or_else(|| format!("{FILE} lacks the lines `{BEGIN}` and, after it, `{END}`"))?;
    if generated.trim().is_empty() {
        return Err("the scenarios printed nothing".to_owned());
    }
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", generated.trim_matches('\n')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let text = "# Head\n<!-- generated: scenarios -->\nold\n<!-- end -->\ntail <!-- end -->\n";
        let new = replace(text, "| a |\n| b |\n").unwrap();
        assert_eq!(new, "# Head\n<!-- generated: scenarios -->\n| a |\n| b |\n<!-- end -->\ntail <!-- end -->\n");
        assert_eq!(replace(&new, "| a |\n| b |\n").unwrap(), new, "a second time changes nothing");
    }

    #[test]
    fn missing_markers_and_empty_output_are_errors() {
        assert!(replace("<!-- end --> <!-- generated: scenarios -->", "x").is_err());
        assert!(replace("nothing", "x").is_err());
        assert!(replace("<!-- generated: scenarios --><!-- end -->", " \n").is_err());
    }
}
