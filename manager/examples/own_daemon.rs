//! A daemon of one's own: `quintetd` with other components linked in, here with none.
//!
//! `Linked::default().with("mine", Arc::new(MyFactory::new()))` links one; `quintet component deploy linked:mine` then
//! starts it, if every node runs a daemon that has it.

use quintet_manager::daemon;
use quintet_manager::packages::Linked;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os().nth(1).ok_or("give a configuration: own_daemon FILE")?;
    let config = daemon::load(Path::new(&file))?;
    daemon::run(config, Linked::default())?;
    Ok(())
}
