Feature: Ctrl+C
  The user may change their mind at any moment; nothing stays behind.

  Scenario Outline: Ctrl+C without a daemon, while <moment>
    Given a model that takes a while to load
    And infer runs with it and is <moment>
    When the user presses Ctrl+C
    Then infer ends with 130 and says "Cancelled." on a line of its own
    And no process of rbee is left

    Examples:
      | moment              |
      | starting            |
      | loading             |
      | reading the prompt  |
      | writing             |

  Scenario: Ctrl+C with a queen that stays
    Given a queen runs
    And a model that takes a while to load
    And infer runs with it and is writing
    When the user presses Ctrl+C
    Then infer ends with 130 and says "Cancelled." on a line of its own
    And the worker is idle again and stays
