Feature: Models on other machines
  A node serves as the user's own machine does: started when it is needed, warm when it was, gone with the command or queen that started it.

  @s08
  Scenario: A warm start on a node
    Given a queen runs
    And the registered node workstation
    And rbee is installed there
    When the user runs infer there
    Then it exits with 0
    When the user runs infer there again
    Then it exits with 0
    And that took less than 5 seconds
    And nothing was checked, fetched or started for it
    And workstation has one hive and one worker, those from before

  @s13 @s43
  Scenario: A hive of another version
    Given a queen runs
    And the registered node workstation
    And rbee is installed there
    And the program there is of an earlier version
    When the user runs infer there
    Then it exits with 1
    And stderr shows both versions on lines of their own
    And stderr says "`rbee setup install --node workstation` brings this version to the node"
    When a client asks the queen for a task there
    Then it is answered with 409 and VERSION_MISMATCH
    When the user installs rbee there
    Then it exits with 0
    And stderr says "Ended the hive on workstation, which was of another version"
    When the user runs infer there
    Then it exits with 0

  @s14 @s36
  Scenario: A hive that does not answer
    Given a queen runs
    And the registered node workstation, which is never reached through SSH
    And rbee is installed there
    And a hive there that listens at another address
    When the user runs infer there
    Then it exits with 1
    And stderr shows 3 attempts with address, timeout and delay
    And stderr says "check that the hive runs on workstation"
    When a client asks the queen for a task there
    Then it is answered with 503 and CONNECTION_TIMEOUT

  @s14
  Scenario: Where SSH may be used, such a hive is reached
    Given a queen runs
    And the registered node workstation
    And rbee is installed there
    And a hive there that listens at another address
    When the user runs infer there
    Then it exits with 0
    And stderr says "going through SSH"
    And stdout holds the text and one newline

  @s50
  Scenario: The keeper leaves and the daemons on the node stay
    Given a queen runs
    And the registered node workstation
    And rbee is installed there
    When the user runs infer there
    Then it exits with 0
    And hive and worker run on workstation, and are listed
    When the queen is told to end
    Then nothing runs on workstation

  @s51
  Scenario: One command leaves nothing behind, here or there
    Given the registered node workstation
    And rbee is installed there
    When the user runs infer there
    Then it exits with 0
    And stdout holds the text and one newline
    And no process of rbee is left
    And nothing runs on workstation

  @s52
  Scenario: A hive that a user started on the node is used
    Given the registered node workstation
    And rbee is installed there
    And a hive that a user started there
    And a queen runs
    When the user runs infer there
    Then it exits with 0
    And hive and worker run on workstation, and are listed
    When the queen is told to end
    Then that hive and its worker live on there
