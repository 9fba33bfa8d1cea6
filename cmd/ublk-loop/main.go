// Command ublk-loop makes a block device of a file, a partition or a disk,
// through the kernel's ublk driver.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:]))
}

// run carries out the command line and returns the exit status.
func run(args []string) int {
	if len(args) > 0 {
		switch args[0] {
		case serverCommand:
			return serverMain(args[1:])
		case scanCommand:
			return scanMain(args[1:])
		}
	}
	return newApp().run(args)
}
