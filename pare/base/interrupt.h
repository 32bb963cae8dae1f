// SIGINT and SIGTERM set a flag; long loops ask for it between steps, so that temporary outputs are removed by the
// ordinary destructors.
#pragma once

namespace pare {

void catch_interrupts();  // installs the handlers; a second signal ends the process at once
bool interrupted();       // has one arrived?
void check_interrupt();   // throws Error(interrupted) when one has
void clear_interrupt();   // for tests

}  // namespace pare
