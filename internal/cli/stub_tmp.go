package cli

import "github.com/spf13/cobra"

func (env *environment) sync() *cobra.Command    { return &cobra.Command{Use: "sync"} }
func (env *environment) runs() *cobra.Command    { return &cobra.Command{Use: "runs"} }
func (env *environment) lists() *cobra.Command   { return &cobra.Command{Use: "lists"} }
func (env *environment) connect() *cobra.Command { return &cobra.Command{Use: "connect"} }
