//! Size of the program, and how soon it answers.

use std::{error::Error, fs, path::Path, time::Duration};

use crate::{
    Effort,
    support::{guests, host::Sandbox, http, manifest::Manifest},
    table::{Goal, Table, median, megabytes},
};

/// Measures.
pub fn measure(program: &Path, effort: Effort, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let size = fs::metadata(program)?.len();
    table.add("size of the program", megabytes(size), "MB", Goal::AtMost(5.0 * 1.048_576));

    let (mut first, mut again) = (Vec::new(), Vec::new());
    for _ in 0..effort.starts {
        let sandbox = Sandbox::new(program);
        let address = http::free_address();
        let mut manifest = Manifest::new("start");
        manifest.actor("counter", &guests::module_path("counter"), 1).http(address).link("keyvalue", &[]);
        let manifest = sandbox.write("counter.yaml", manifest.text());
        for times in [&mut first, &mut again] {
            let host = sandbox.run(&manifest, &[]);
            times.push(http::wait_for_200(address, Duration::from_secs(20))?.as_secs_f64() * 1e3);
            host.kill();
        }
    }
    table.add("exec to the first HTTP 200, first start", median(&mut first), "ms", Goal::AtMost(60.0));
    table.add("exec to the first HTTP 200, after kill -9", median(&mut again), "ms", Goal::AtMost(60.0));
    Ok(())
}
