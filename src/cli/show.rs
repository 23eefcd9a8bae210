//! How answers look: one line of JSON for programs, a table or lines for people.

use serde_json::Value;

/// Prints an object.
pub fn line(as_json: bool, value: &Value) {
    if as_json {
        println!("{value}");
        return;
    }
    let pairs: Vec<(&String, String)> =
        value.as_object().into_iter().flatten().map(|(name, value)| (name, text(value))).collect();
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in pairs {
        println!("{name:width$}  {value}");
    }
}

/// Prints the `items` of a page with these columns.
pub fn table(as_json: bool, page: &Value, columns: &[&str]) {
    if as_json {
        println!("{page}");
        return;
    }
    let rows: Vec<Vec<String>> = page["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| columns.iter().map(|column| text(&item[column])).collect())
        .collect();
    let width = |n: usize| rows.iter().map(|row| row[n].chars().count()).chain([columns[n].len()]).max().unwrap_or(0);
    let print = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().enumerate().map(|(n, cell)| format!("{cell:0$}", width(n))).collect();
        println!("{}", padded.join("  ").trim_end());
    };
    print(&columns.iter().map(|column| (*column).to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|row| print(row));
    let total = page["total"].as_u64().unwrap_or_default();
    if total > rows.len() as u64 {
        println!("… {} of {total}: narrow it with --keyword", rows.len());
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "-".into(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
