//! Icons: plain strokes on a field of 16 × 16, drawn for this console.

use maud::{Markup, html};

macro_rules! icons {
    ($($name:ident $path:literal;)*) => {
        /// An icon.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Icon { $($name,)* }

        impl Icon {
            /// All icons.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            const fn path(self) -> &'static str {
                match self { $(Self::$name => $path,)* }
            }
        }
    };
}

icons! {
    Home "M2 8 8 2.5 14 8M3.5 7v6.5h9V7M6.5 13.5v-4h3v4";
    Member "M5.25 5a2.75 2.75 0 1 0 5.5 0a2.75 2.75 0 1 0-5.5 0M2.5 14c0-6 11-6 11 0";
    Members "M3.5 5.5a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0-5 0M1.5 13.5c0-5 9-5 9 0M10.5 3.2a2.5 2.5 0 0 1 0 4.6M12 9.7q2.5.8 2.5 3.8";
    Invitation "M1.5 3.5h13v9h-13zM1.5 4 8 9l6.5-5";
    Role "M8 1.5 13.5 3.5V8q0 4.5-5.5 6.5Q2.5 12.5 2.5 8V3.5z";
    Grid "M2 2h12v12H2zM2 6h12M2 10h12M6 2v12M10 2v12";
    Mapping "M2 4h4l4 8h4M2 12h4l1.2-2.4M8.8 6.4 10 4h4M12 2l2 2-2 2M12 10l2 2-2 2";
    Question "M5.5 5.5c0-4 5.5-3.5 5.5 0 0 2-3 2.2-3 4.5M8 13v.5";
    Decision "M2 4.5 3.5 6 6 3M2 11 3.5 12.5 6 9.5M8.5 4.5H14M8.5 11H14";
    Plugin "M5.5 1.5V5M10.5 1.5V5M3.5 5h9v3q0 3.5-4.5 3.5T3.5 8zM8 11.5v3";
    Usage "M2 14h12M3.5 14V9M8 14V3M12.5 14V6.5";
    Video "M1.5 3h13v10h-13zM6.5 5.75v4.5L10.25 8z";
    Job "M8 1.5v3M8 11.5v3M1.5 8h3M11.5 8h3M3.4 3.4l2.1 2.1M10.5 10.5l2.1 2.1M3.4 12.6l2.1-2.1M10.5 5.5l2.1-2.1";
    Webhook "M8 3.5a2 2 0 1 1 2 3L7.5 11M4.5 8a2.5 2.5 0 1 0 3 4h4M10 6.5a2.8 2.8 0 1 1 1.5 5.5";
    Audit "M3 1.5h7l3 3v10H3zM9.5 1.5V5H13M5.5 8h5M5.5 11h5";
    Settings "M1.5 4.5h6M11 4.5h3.5M1.5 11.5h3M8 11.5h6.5M7.5 2.5h3.5v4H7.5zM4.5 9.5H8v4H4.5z";
    Site "M1.5 8a6.5 6.5 0 1 0 13 0a6.5 6.5 0 1 0-13 0M1.5 8h13M8 1.5q-5 6.5 0 13M8 1.5q5 6.5 0 13";
    Organization "M2 14V3h7v11M9 6.5h5V14M.5 14h15M4.5 6h2M4.5 9h2M11.5 9.5v1.5";
    Client "M1.5 2.5h13v11h-13zM4 6l2.5 2L4 10M8.5 10.5h3.5";
    Key "M1.5 11a3 3 0 1 0 6 0a3 3 0 1 0-6 0M6.7 8.8 14 1.5M11 4.5 13.5 7";
    Connection "M6.5 4.5 8 3q2.5-2 4.5 0t.5 5L11.5 9.5M9.5 11.5 8 13q-2.5 2-4.5 0T3 8l1.5-1.5M6 10l4-4";
    Doctor "M1 8.5h3.5L6 4l3.5 8.5L11 8.5h4";
    Session "M2 2.5h12v8H2zM5 13.5h6M8 10.5v3";
    Search "M2 6.75a4.75 4.75 0 1 0 9.5 0a4.75 4.75 0 1 0-9.5 0M10.2 10.2 14.5 14.5";
    Plus "M8 2.5v11M2.5 8h11";
    Minus "M3 8h10";
    Check "M2.5 8.5 6.5 12.5 13.5 4";
    Cross "M3.5 3.5l9 9M12.5 3.5l-9 9";
    Warning "M8 2 15 14H1zM8 6.5v3.5M8 11.8v.4";
    Info "M1.75 8a6.25 6.25 0 1 0 12.5 0a6.25 6.25 0 1 0-12.5 0M8 7.3V11M8 4.8v.4";
    Ring "M4 8a4 4 0 1 0 8 0a4 4 0 1 0-8 0";
    Dot "M4 8a4 4 0 1 0 8 0a4 4 0 1 0-8 0M7 8a1 1 0 1 0 2 0a1 1 0 1 0-2 0";
    Lock "M3 7.5h10v6.5H3zM5 7.5V5q0-3 3-3t3 3v2.5";
    Copy "M5.5 5.5h8.5v8.5H5.5zM3.5 10.5H2V2h8.5v1.5";
    Trash "M2 4h12M6 4V2h4v2M3.5 4l.75 10h7.5l.75-10M6.75 7v4M9.25 7v4";
    Undo "M5.5 2.5 2.5 5.5 5.5 8.5M2.5 5.5h7q4 0 4 4t-4 4H6";
    Sort "M5 6.5 8 3.5 11 6.5M5 9.5 8 12.5 11 9.5";
    Up "M3.5 10 8 5.5 12.5 10";
    Down "M3.5 6 8 10.5 12.5 6";
    Left "M10 3.5 5.5 8 10 12.5";
    Right "M6 3.5 10.5 8 6 12.5";
    List "M2 4h12M2 8h12M2 12h12";
    Theme "M1.75 8a6.25 6.25 0 1 0 12.5 0a6.25 6.25 0 1 0-12.5 0M8 1.75v12.5M8 5l3-2.4M8 8.5l5.5-4.6M8 12l6-5M9.5 14l4-3.3";
    Language "M1.5 3.5h8M5.5 1.5v2M8 3.5q-1.5 5-6.5 7M3.5 6q1.5 3 5 4.5M7.5 14.5l3.5-8 3.5 8M8.8 11.8h4.4";
    SignOut "M6.5 2H2.5v12h4M10.5 4.5 14 8l-3.5 3.5M14 8H6";
    Download "M8 1.5v9M4 7l4 4 4-4M2 14.5h12";
    Upload "M8 11.5v-9M4 6l4-4 4 4M2 14.5h12";
    Clock "M1.75 8a6.25 6.25 0 1 0 12.5 0a6.25 6.25 0 1 0-12.5 0M8 4v4l3 2";
    Outside "M6 3H2.5v10.5H13V10M9 2h5v5M14 2 7.5 8.5";
}

/// The icon. It only goes with a text, so screen readers skip it.
pub fn icon(name: Icon) -> Markup {
    html! { svg class="icon" viewBox="0 0 16 16" aria-hidden="true" { path d=(name.path()) {} } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icons_differ_and_are_small() {
        for (n, icon) in Icon::ALL.iter().enumerate() {
            assert!(icon.path().len() <= 160, "{icon:?}");
            assert!(Icon::ALL[..n].iter().all(|other| other.path() != icon.path()), "{icon:?}");
        }
    }
}
