// Command holdfast is the gateway, and everything a person needs at a command
// line around it.
//
//	holdfast run [--config FILE]     the gateway, until SIGINT or SIGTERM
//	holdfast check FILE              says what is wrong with a configuration
//	holdfast status                  asks a running gateway how it is
//	holdfast passwd [NAME]           makes the hash of an account's password
//	holdfast queue COMMAND           what waits, and what is to become of it
//	holdfast scope forget --yes      the way out when seal.key is lost
//	holdfast version
//
// It is the roof of the house: here alone are flags, environment and
// configuration files read, and the rooms put together. The few types are
// Program (the whole of it as a value, which tests run in-process), Config,
// Service (what the supervisor group keeps running), Certs and Server.
//
// Exit statuses are 0 (done, or ended by a signal in good order), 1 (a fault at
// run time) and 2 (wrong arguments, or a configuration that is not valid). Errors
// go to standard error as "holdfast: what: why", with a line "hint: what to do"
// after them where there is something to do.
//
// Environment: HOLDFAST_CONFIG is the default of --config.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	p := Program{Args: os.Args[1:], Env: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(p.Execute(ctx))
}
