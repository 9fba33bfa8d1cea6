// Package hooks has the configuration by which podman calls the hooks of ublk-loop. A test
// installs it; the command does not use it.
package hooks

import _ "embed"

// Podman is ublk-loop.json.
//
//go:embed ublk-loop.json
var Podman string
