// Package e2e has the tests that run the programs on a real kernel, as a user does: the
// command (UBLK_LOOP_BIN), and container engines and systemd with it. The tests use only
// the programs' output and package client.
package e2e
