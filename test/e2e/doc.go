// Package e2e has the tests that run the programs as a user does, on a real kernel: the
// command (UBLK_LOOP_BIN), and container engines and systemd with it. It knows the
// programs by what they print, and by package client.
package e2e
