// Package losetup is the command line of losetup(8) of util-linux 2.41 and 2.42, over the
// devices of ublk-loop. Options, output, messages and exit statuses are those of losetup.
// An option that has no meaning for these devices is refused.
package losetup
