Feature: Installing rbee
  One command puts the one file in its place, under all its names; running it again does no harm.

  @s54
  Scenario: For one user
    When the user runs install
    Then it exits with 0
    And ~/.local/bin holds the file as rbee, and its four links
    And ~/.config/rbee/config.toml holds the defaults
    And ~/.local/share/rbee/models is a folder
    And it printed how rbee comes into PATH, and what to do next

  @s54
  Scenario: The installed names are the roles
    Given the user has installed rbee
    And a queen that was started as queen-rbee
    And a hive that was started as rbee-hive
    When the user runs infer as rbee-keeper
    Then it exits with 0
    And stdout holds the text and one newline
    And the worker is of that hive, and was started from the installed file
    And llm-worker-rbee answers as the worker

  @s54
  Scenario: Again, over an earlier version and the user's own settings
    Given the user has installed an earlier version, and changed the settings
    When the user runs install
    Then it exits with 0
    And stderr says "in place of 0.0.1"
    And ~/.local/bin holds the file as rbee, and its four links
    And the settings are as the user left them
    When the installed program installs itself
    Then it exits with 0
    And ~/.local/bin holds the file as rbee, and its four links

  @s54
  Scenario: From a checkout
    When the user runs install in the checkout that the file was built from
    Then it exits with 0
    And ~/.local/bin holds the file as rbee, and its four links

  @s54
  Scenario Outline: What cannot be written leaves the earlier version working
    Given the user has installed rbee on a disk of its own
    And that disk is then <state>
    When the user runs install
    Then it exits with 1
    And stderr says "<reason>"
    And the installed program works, and nothing unfinished is beside it

    Examples:
      | state     | reason                                      |
      | full      | could not be written: No space left on device |
      | read-only | Read-only file system                       |

  @s54
  Scenario: A file of someone else is in the way
    Given a program of the user's own called rbee-hive in ~/.local/bin
    When the user runs install
    Then it exits with 1
    And stderr says "rbee-hive exists already, and was not made by rbee"
    And nothing but that program is there

  Scenario: Services for systemd
    When the user runs install with --systemd
    Then it exits with 0
    And systemd takes both units
    And stderr says "systemctl --user enable --now rbee-hive rbee-queen"

  @s55
  Scenario: For all users
    When root runs install --system
    Then it exits with 0
    And /usr/local/bin holds the file as rbee, and its four links
    And /etc/rbee/config.toml says that models are in /var/lib/rbee/models
    And any user may run and read all of it
    And rbee, run from there, looks for models in /var/lib/rbee/models

  @s55
  Scenario: Without root
    When a user who is not root runs install --system
    Then it exits with 1
    And stderr says "only root can install rbee for all users"
    And stderr says "--prefix DIR"
    And the folders of the system are as they were

  @s55
  Scenario: Below another folder
    When the user runs install --system below a folder with an odd name
    Then it exits with 0
    And the same files are below that folder
    And rbee, run from there with its settings, looks for models below that folder

  @s56
  Scenario: Where the settings come from
    Given RBEE_CONFIG, ~/.config/rbee and /etc/rbee each have settings, with a folder for models of their own
    When the user asks for it, and takes away the first settings each time
    Then the models were in the folder of RBEE_CONFIG, of the user, of the system, and at last in the default one

  @s56
  Scenario Outline: A wrong value is named with its file
    Given <place> has settings with the port "many" for the queen
    When the user runs status
    Then it exits with 1
    And stderr says "queen.port: expected int, got str"
    And stderr names that file

    Examples:
      | place          |
      | RBEE_CONFIG    |
      | ~/.config/rbee |
      | /etc/rbee      |
