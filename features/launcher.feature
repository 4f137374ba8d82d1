Feature: The one file on other people's machines
  Where rbee.pyz cannot run, one clear line says why and what to do.

  Scenario: A Python that is too old
    When rbee.pyz is run by each older Python that is here
    Then each says in one line which Pythons it needs, and fails

  Scenario: A home that cannot be written
    Given a home folder that belongs to someone else
    When another user runs rbee.pyz there
    Then it says in one line where it could not write, and how to choose another folder

  Scenario: A full disk
    Given a cache folder on a disk of 1 MB
    When the user runs infer with the prompt "Once upon a time"
    Then it says in one line where it could not write, and how to choose another folder
    When there is room on that disk
    And the user runs infer with the prompt "Once upon a time"
    Then it exits with 0
    And stdout holds the text and one newline
    When that disk is full again
    And the user runs infer with the prompt "Once upon a time"
    Then it exits with 0

  Scenario: A disk from which nothing may be executed
    Given a cache folder on a disk without execution
    When the user runs infer with the prompt "Once upon a time"
    Then it says in one line that nothing may be executed there, and how to choose another folder

  Scenario: From any folder, by any of its names
    When the file is linked as queen-rbee elsewhere and asked for help
    Then it answers as the queen
