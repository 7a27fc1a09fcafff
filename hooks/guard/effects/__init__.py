"""What a command line would do: `walker` follows control flow, one module a family of programs says what each touches."""
