package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/internal/report"
)

// checkCobraCommands makes the commands that cobra adds, help and completion, and makes them refuse
// wrong arguments. cobra itself prints help in that case, and reports success.
func checkCobraCommands(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = checkTopic
		case "completion":
			cmd.Args = checkShell
			cmd.RunE = func(*cobra.Command, []string) error { return nil } // Args refuses everything
			for _, shell := range cmd.Commands() {
				shell.Args = arguments(0, 0, "")
			}
		}
	}
}

// checkTopic refuses help about a command that does not exist.
func checkTopic(help *cobra.Command, args []string) error {
	found, rest, err := help.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return report.Usage(fmt.Errorf("help: unknown command %q", args[len(args)-max(1, len(rest))]), helpHint(found))
	}
	return nil
}

func checkShell(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return report.Usage(errors.New("completion: bash, zsh, fish or powershell is missing"), helpHint(cmd))
	}
	return report.Usage(fmt.Errorf("completion: unknown shell %q", args[0]), helpHint(cmd))
}
